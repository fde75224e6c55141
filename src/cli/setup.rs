//! `setup`: streams and buckets.

use clap::Args;

use crate::config::Config;
use crate::protocol::topology::{self, FirstSequence, Sizes};

#[derive(Debug, Args)]
pub(super) struct Options {
    /// Continue the stream `OAUTH` at this sequence, after it was restored alone or created again. The error of the refused
    /// start names the sequence.
    #[arg(long, value_name = "SEQUENCE", value_parser = clap::value_parser!(u64).range(2..))]
    first_seq: Option<u64>,
    /// Drop the records that `OAUTH` still holds, which `--first-seq` needs. Buckets are not touched; a record that is
    /// newer than its bucket entry is lost.
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
    let sizes = Sizes::of(config);
    topology::set_up(&nats, sizes, first).await?;
    super::print::print_success("all streams and buckets are set up", json)
}
