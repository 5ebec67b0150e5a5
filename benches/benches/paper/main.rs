//! The paper's experiments on balance (SOSP 2007, section 6.2) and ours beside them: Figures 6 and 8 as tables and SVG.
//!
//! `cargo bench -p gramme-benches --bench paper -- --out figures` draws them to `benches/figures/`; without `--out` they go
//! to the target folder. With `--test`, as in CI, all runs once on fewer draws.

mod chart;
mod figure_6;
mod figure_8;
mod load;

use std::error::Error;
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let draws = if arguments.iter().any(|a| a == "--test") { 2 } else { 20 };
    let named = arguments.iter().position(|a| a == "--out").map(|at| arguments.get(at + 1));
    let folder = match named {
        Some(folder) => PathBuf::from(folder.ok_or("--out wants a folder")?),
        None => PathBuf::from(env!("CARGO_TARGET_TMPDIR")),
    };
    std::fs::create_dir_all(&folder)?;
    figure_6::run(draws, &folder.join("figure-6.svg"))?;
    figure_8::run(draws, &folder.join("figure-8.svg"))?;
    Ok(())
}
