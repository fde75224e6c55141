//! Table, JSON and plot of latencies.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::json;

use crate::load::Measured;

/// The quantiles, with their names.
const QUANTILES: [(&str, f64); 4] = [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999), ("p99.99", 0.9999)];
/// Height of a line in the plot, and width of the names' column and of the axis.
const HEIGHT: usize = 22;
const NAMES: f64 = 360.0;
const AXIS: f64 = 480.0;
/// Ends of the logarithmic axis, as powers of ten of a millisecond.
const DECADES: (i32, i32) = (-1, 3);
/// Colour of each quantile.
const COLOURS: [&str; 4] = ["#264", "#4a7", "#c93", "#b33"];

/// The latencies of one load on one shape of servers.
pub(crate) struct Line {
    pub(crate) shape: &'static str,
    pub(crate) load: &'static str,
    pub(crate) times: Measured,
}

impl Line {
    fn quantiles(&self) -> [f64; 4] {
        QUANTILES.map(|(_, share)| self.times.quantile(share))
    }
}

pub(crate) fn table(lines: &[Line]) -> String {
    let mut text = "| servers | load | p50 ms | p99 ms | p99.9 ms | p99.99 ms | failed |\n".to_owned();
    text += "| --- | --- | --- | --- | --- | --- | --- |\n";
    for line in lines {
        let [p50, p99, p999, p9999] = line.quantiles();
        let Line { shape, load, times } = line;
        let failed = times.failed;
        writeln!(text, "| {shape} | {load} | {p50:.2} | {p99:.2} | {p999:.2} | {p9999:.2} | {failed} |")
            .expect("a text grows");
    }
    text
}

/// Writes `<name>.json` and `<name>.svg` into a folder.
pub(crate) fn write(folder: &Path, name: &str, lines: &[Line]) {
    let figures: Vec<_> = lines
        .iter()
        .map(|line| {
            let [p50, p99, p999, p9999] = line.quantiles();
            json!({
                "servers": line.shape, "load": line.load, "failed": line.times.failed,
                "p50_ms": p50, "p99_ms": p99, "p99.9_ms": p999, "p99.99_ms": p9999,
            })
        })
        .collect();
    let json = serde_json::to_string_pretty(&figures).expect("figures are JSON");
    std::fs::write(folder.join(name).with_extension("json"), json + "\n").expect("the folder can be written");
    std::fs::write(folder.join(name).with_extension("svg"), plot(lines)).expect("the folder can be written");
}

/// A line for each load, with a dot for each quantile on a logarithmic axis.
fn plot(lines: &[Line]) -> String {
    let height = HEIGHT * (lines.len() + 2);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{}\" height=\"{height}\" font-family=\"sans-serif\" \
         font-size=\"12\"><rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n",
        NAMES + AXIS + 40.0
    );
    for decade in DECADES.0..=DECADES.1 {
        let (at, value) = (position(10_f64.powi(decade)), 10_f64.powi(decade));
        writeln!(
            svg,
            "<line x1=\"{at:.0}\" x2=\"{at:.0}\" y1=\"{HEIGHT}\" y2=\"{height}\" stroke=\"#ccc\"/>\
             <text x=\"{at:.0}\" y=\"14\" text-anchor=\"middle\">{value} ms</text>"
        )
        .expect("a text grows");
    }
    for (index, line) in lines.iter().enumerate() {
        let base = HEIGHT * (index + 2) - 6;
        let name = format!("{}: {}", line.shape, line.load);
        writeln!(svg, "<text x=\"{}\" y=\"{base}\" text-anchor=\"end\">{name}</text>", NAMES - 8.0)
            .expect("a text grows");
        for ((name, _), (value, colour)) in QUANTILES.into_iter().zip(line.quantiles().into_iter().zip(COLOURS)) {
            let at = position(value);
            writeln!(
                svg,
                "<circle cx=\"{at:.0}\" cy=\"{}\" r=\"5\" fill=\"{colour}\"><title>{name}: {value:.2} ms</title></circle>",
                base - 4
            )
            .expect("a text grows");
        }
    }
    for (index, ((name, _), colour)) in QUANTILES.into_iter().zip(COLOURS).enumerate() {
        writeln!(svg, "<text x=\"{}\" y=\"14\" fill=\"{colour}\">{name}</text>", 8 + 56 * index).expect("a text grows");
    }
    svg + "</svg>\n"
}

/// The place of a latency on the axis.
fn position(milliseconds: f64) -> f64 {
    let (first, last) = (f64::from(DECADES.0), f64::from(DECADES.1));
    NAMES + AXIS * (milliseconds.log10().clamp(first, last) - first) / (last - first)
}
