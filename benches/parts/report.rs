//! Table, JSON and plot of figures.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::json;

/// Height of a bar in the plot, and the width of the longest.
const BAR: usize = 16;
const WIDTH: f64 = 420.0;
/// Width of the names' column in the plot.
const NAMES: usize = 330;

/// A figure of this build; of the other build and the ratio of both, if another build was measured.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) this: f64,
    pub(crate) other: Option<f64>,
    pub(crate) ratio: Option<f64>,
}

pub(crate) fn table(rows: &[Row]) -> String {
    let mut text = "| figure | other build | this build | ratio |\n| --- | --- | --- | --- |\n".to_owned();
    for Row { name, this, other, ratio } in rows {
        let [other, ratio] = [other, ratio]
            .map(|it| it.filter(|it| it.is_finite()).map_or("–".to_owned(), |value| format!("{value:.2}")));
        writeln!(text, "| {name} | {other} | {this:.2} | {ratio} |").expect("a text grows");
    }
    text
}

/// Writes `<name>.json` and `<name>.svg` into a folder.
pub(crate) fn write(folder: &Path, name: &str, rows: &[Row]) {
    let figures: Vec<_> = rows
        .iter()
        .map(|Row { name, this, other, ratio }| json!({ "figure": name, "this": this, "other": other, "ratio": ratio }))
        .collect();
    let json = serde_json::to_string_pretty(&figures).expect("figures are JSON");
    std::fs::write(folder.join(name).with_extension("json"), json + "\n").expect("the folder can be written");
    std::fs::write(folder.join(name).with_extension("svg"), plot(rows)).expect("the folder can be written");
}

/// A bar for each ratio, or for each figure per second if there is no other build.
fn plot(rows: &[Row]) -> String {
    let has_ratios = rows.iter().any(|row| row.ratio.is_some());
    let value =
        |row: &Row| if has_ratios { row.ratio } else { Some(row.this).filter(|_| row.name.contains("per second")) };
    let bars: Vec<(&str, f64)> = rows.iter().filter_map(|row| Some((row.name, value(row)?))).collect();
    let longest = bars.iter().map(|(_, value)| *value).fold(f64::MIN_POSITIVE, f64::max);
    let (height, width) = ((BAR + 6) * (bars.len() + 1), NAMES + WIDTH as usize + 80);
    let title = if has_ratios { "this build / other build" } else { "per second" };
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" font-family=\"sans-serif\" \
         font-size=\"12\"><rect width=\"100%\" height=\"100%\" fill=\"white\"/><text x=\"{NAMES}\" y=\"14\">{title}</text>\n"
    );
    for (index, (name, value)) in bars.iter().enumerate() {
        let (top, length) = ((BAR + 6) * (index + 1), WIDTH * value / longest);
        let (base, end) = (top + BAR - 4, NAMES as f64 + length + 6.0);
        writeln!(
            svg,
            "<text x=\"{}\" y=\"{base}\" text-anchor=\"end\">{name}</text><rect x=\"{NAMES}\" y=\"{top}\" width=\"{length:.0}\" \
             height=\"{BAR}\" fill=\"#4a7\"/><text x=\"{end:.0}\" y=\"{base}\">{value:.2}</text>",
            NAMES - 8
        )
        .expect("a text grows");
    }
    svg + "</svg>\n"
}
