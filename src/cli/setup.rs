//! `setup`: streams and buckets.

use clap::Args;

use crate::config::Config;
use crate::protocol::topology::{self, FirstSequence, Sizes};

#[derive(Debug, Args)]
pub(super) struct Options {
    /// Let the stream `OAUTH`, restored alone or made anew, go on at this sequence. The start that was refused names
    /// one.
    #[arg(long, value_name = "SEQUENCE", value_parser = clap::value_parser!(u64).range(2..))]
    first_seq: Option<u64>,
    /// Drop the records that `OAUTH` still holds, to get there. The buckets stay as they are; a record that is newer than
    /// its entry there is lost.
    #[arg(long, requires = "first_seq")]
    drop_records: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(config: &Config, options: Options) -> anyhow::Result<()> {
    let Options { first_seq, drop_records, json } = options;
    let first = first_seq.map(|sequence| FirstSequence { sequence, drop_records });
    let nats = super::connect(config).await?;
    let sizes = Sizes { replicas: config.nats.replicas, login_ttl: config.oauth.login_ttl };
    topology::set_up(&nats, sizes, first).await?;
    super::print::done("all streams and buckets are as they must be", json)
}
