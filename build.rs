//! Lists the files in `config/providers` for `src/provider/profiles.rs`, so that a profile is added by adding its file.

use std::fmt::Write as _;
use std::io::{Error, Result};
use std::path::Path;
use std::{env, fs};

const FOLDER: &str = "config/providers";

fn main() -> Result<()> {
    println!("cargo::rerun-if-changed={FOLDER}");
    let variable = |name: &str| env::var_os(name).ok_or_else(|| Error::other(format!("{name} is not set; run cargo")));
    let folder = Path::new(&variable("CARGO_MANIFEST_DIR")?).join(FOLDER);
    let mut paths = fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    paths.sort();
    let mut list = String::new();
    for path in paths.iter().filter(|path| path.extension().is_some_and(|extension| extension == "toml")) {
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        let path = path.to_string_lossy();
        writeln!(list, "({name:?}, include_str!({path:?})),").map_err(Error::other)?;
    }
    fs::write(Path::new(&variable("OUT_DIR")?).join("profiles.rs"), format!("&[{list}]"))
}
