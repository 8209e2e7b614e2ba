//! The binary `trainyard-ops`: built-in stages on libtorch.
//!
//! ```text
//! job ─→ csv, libsvm ─→ split, standardize, pca ─→ train ─→ evaluate, predict ─→ best
//! ```
//!
//! The orchestrator runs it as it runs any other command, one process a stage, so that neither memory nor a crash of
//! libtorch reaches it. Every stage reads and writes files: [`dataset`] and [`model`] are safetensors ([`archive`]),
//! reports are JSON. It knows the catalogue of `trainyard::spec::op` and nothing else of the orchestrator.

mod archive;
mod best;
mod checkpoint;
mod csv;
mod dataset;
mod error;
mod evaluate;
mod file;
mod job;
mod libsvm;
mod model;
mod network;
mod optimizer;
mod params;
mod pca;
mod predict;
mod progress;
mod split;
mod standardize;
mod surroundings;
mod tensor;
mod train;

use std::path::Path;
use std::process::ExitCode;

use crate::job::Job;
use crate::surroundings::Surroundings;

const USAGE: &str = "\
usage: trainyard-ops FILE       carries out the job in a JSON file
       trainyard-ops --devices  says what this libtorch can use, as JSON
       trainyard-ops --version

A job: {\"op\": \"data.csv\", \"with\": {...}, \"inputs\": [\"a.csv\"], \"outputs\": [\"a.safetensors\"]}
`trainyard run` writes it for each stage that has `use` instead of `run`.";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--help" | "-h"] => println!("{USAGE}"),
        ["--version" | "-V"] => {
            println!("trainyard-ops {} (libtorch {})", env!("CARGO_PKG_VERSION"), surroundings::LIBTORCH);
        }
        ["--devices"] => println!("{}", surroundings::describe()),
        [file] if !file.starts_with('-') => {
            let done = Job::read(Path::new(file)).and_then(|job| job.perform(&Surroundings::read()));
            if let Err(error) = done {
                eprintln!("error: {error}");
                return ExitCode::from(1);
            }
        }
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    }
    ExitCode::SUCCESS
}
