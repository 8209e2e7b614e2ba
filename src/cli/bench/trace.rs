//! Reading a trace of arrivals: nodes and pods as CSV, orders as JSON, each gzipped or not.
//!
//! The columns are those of Alibaba's GPU traces; others are ignored and their order does not matter. Everything that is
//! wrong with a file is found at once. Does not know what is done with it.

use std::collections::{HashMap, HashSet};
use std::io::Read;
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;
use serde::Deserialize;

use crate::cli::{Exit, Failure};
use crate::plan::arrivals::{Node, Order, Request, Trace};
use crate::report::text;
use crate::units::{Bytes, Cpus, Share};

/// More devices than any node has.
const GPUS_MOST: u64 = 1_024;

/// Problems of one file that are told; those behind them are counted.
const TOLD: usize = 10;

/// Reads a trace: a folder with `nodes.csv` and `pods.csv`, or a file of pods with `nodes.csv` beside it or elsewhere.
pub(super) fn read(path: &Path, nodes: Option<&Path>) -> Result<Trace, Failure> {
    let (folder, pods) = if path.is_dir() {
        (path, in_folder(path, "pods.csv"))
    } else {
        (path.parent().unwrap_or(Path::new("")), path.to_owned())
    };
    let beside = in_folder(folder, "nodes.csv");
    let nodes = nodes.map_or(beside, Path::to_owned);
    let requests = Table::read(&pods, &["cpu_milli", "memory_mib", "num_gpu", "gpu_milli"])?.rows(request)?;
    let nodes_read = Table::read(&nodes, &["cpu_milli", "memory_mib", "gpu", "model"])?;
    let nodes_read = nodes_read.rows(node)?;
    let mut names = HashSet::new();
    if let Some(twice) = nodes_read.iter().find(|node| !node.name.is_empty() && !names.insert(&node.name)) {
        let words = format!("{}: two nodes are named `{}`", nodes.display(), text::visible(&twice.name));
        return Err(rejected(&words, "give every node a name of its own in the column `sn`"));
    }
    if nodes_read.iter().all(|node| node.gpus == 0) {
        let words = format!("{}: no node has a GPU", nodes.display());
        return Err(rejected(&words, "the column `gpu` says how many GPUs a node has"));
    }
    if requests.iter().all(|request| request.gpus == 0) {
        let words = format!("{}: nothing that arrives asks for a GPU", pods.display());
        return Err(rejected(&words, "the column `num_gpu` says how many GPUs are asked for"));
    }
    Ok(Trace { nodes: nodes_read, requests })
}

/// Returns a file of a folder, the gzipped one where there is no other.
fn in_folder(folder: &Path, name: &str) -> PathBuf {
    let (plain, packed) = (folder.join(name), folder.join(format!("{name}.gz")));
    if !plain.exists() && packed.exists() { packed } else { plain }
}

fn rejected(words: &str, help: &str) -> Failure {
    Failure { exit: Exit::Rejected, report: miette::miette!(help = help.to_owned(), "{words}") }
}

/// Reads a text, unpacking it if it is gzipped: told by its first two bytes, not by its name.
fn text_of(path: &Path) -> Result<String, Failure> {
    let unpacked = || {
        let bytes = std::fs::read(path)?;
        let mut text = String::new();
        if bytes.starts_with(&[0x1f, 0x8b]) {
            MultiGzDecoder::new(bytes.as_slice()).read_to_string(&mut text)?;
            return Ok(text);
        }
        String::from_utf8(bytes).map_err(std::io::Error::other)
    };
    unpacked().map_err(|error: std::io::Error| {
        let words = format!("cannot read {}: {error}", path.display());
        rejected(&words, "a trace is a CSV of pods, and `nodes.csv` beside it or another named by --nodes")
    })
}

/// A CSV file (RFC 4180) with a heading.
struct Table {
    path: PathBuf,
    columns: HashMap<String, usize>,
    /// Each with the number of its first line.
    rows: Vec<(usize, Vec<String>)>,
}

/// A row of a table.
struct Row<'t> {
    table: &'t Table,
    fields: &'t [String],
}

impl Table {
    /// Reads a file that must have these columns.
    fn read(path: &Path, wanted: &[&str]) -> Result<Self, Failure> {
        let mut rows = split(&text_of(path)?).into_iter();
        let heading = rows.next().map(|(_, fields)| fields).unwrap_or_default();
        let columns: HashMap<_, _> = heading.iter().map(|name| name.trim().to_owned()).zip(0..).collect();
        let missing: Vec<_> = wanted.iter().filter(|name| !columns.contains_key(**name)).copied().collect();
        if !missing.is_empty() {
            let words = format!("{}:1: no column `{}`", path.display(), missing.join("`, `"));
            let help = format!("the first line names the columns: {} and, where wanted, others", wanted.join(","));
            return Err(rejected(&words, &help));
        }
        let rows = rows.collect();
        Ok(Self { path: path.to_owned(), columns, rows })
    }

    /// Reads every row, or says what is wrong with any.
    fn rows<T>(&self, read: fn(&Row<'_>) -> Result<T, String>) -> Result<Vec<T>, Failure> {
        let (mut read_so_far, mut problems) = (Vec::with_capacity(self.rows.len()), Vec::new());
        for (line, fields) in &self.rows {
            let (found, columns) = (fields.len(), self.columns.len());
            let row = Row { table: self, fields };
            let whole = if found < columns { Err(format!("{found} fields under {columns} columns")) } else { Ok(&row) };
            match whole.and_then(read) {
                Ok(one) => read_so_far.push(one),
                Err(problem) => problems.push(format!("{}:{line}: {problem}", self.path.display())),
            }
        }
        let more = problems.len().saturating_sub(TOLD);
        problems.truncate(TOLD);
        if more > 0 {
            problems.push(format!("and {more} more lines"));
        }
        match (problems.is_empty(), read_so_far.is_empty()) {
            (false, _) => Err(rejected(&problems.join("\n"), "mend these lines, or leave them out")),
            (true, true) => Err(rejected(&format!("{}: it has no rows", self.path.display()), "write a line for each")),
            (true, false) => Ok(read_so_far),
        }
    }
}

impl Row<'_> {
    /// Returns what stands in a column; nothing where the table or the line does not have it.
    fn text(&self, column: &str) -> &str {
        let index = self.table.columns.get(column);
        index.and_then(|index| self.fields.get(*index)).map_or("", |field| field.trim())
    }

    /// Returns a whole number from 0 to `most`.
    fn number(&self, column: &str, most: u64) -> Result<u64, String> {
        let written = self.text(column);
        match written.parse::<u64>() {
            Ok(number) if number <= most => Ok(number),
            Ok(number) => Err(format!("`{column}` is {number}: at most {most} can be")),
            Err(_) if written.is_empty() => Err(format!("`{column}` is empty: write a whole number")),
            Err(_) => Err(format!("`{column}` is `{}`: write a whole number", text::visible(written))),
        }
    }

    fn cpus(&self) -> Result<Cpus, String> {
        self.number("cpu_milli", 1 << 40).map(Cpus)
    }

    fn memory(&self) -> Result<Bytes, String> {
        self.number("memory_mib", 1 << 40).map(|mib| Bytes(mib << 20))
    }
}

fn node(row: &Row<'_>) -> Result<Node, String> {
    let gpus = usize::try_from(row.number("gpu", GPUS_MOST)?).unwrap_or(0);
    let name = ["sn", "name"].map(|column| row.text(column)).into_iter().find(|name| !name.is_empty());
    let model = row.text("model").to_owned();
    Ok(Node { name: name.unwrap_or_default().to_owned(), cpus: row.cpus()?, memory: row.memory()?, gpus, model })
}

fn request(row: &Row<'_>) -> Result<Request, String> {
    let gpus = row.number("num_gpu", GPUS_MOST)?;
    let milli = match (gpus, row.text("gpu_milli")) {
        (0, "") => 0,
        (_, "") => 1_000,
        (_, _) => row.number("gpu_milli", 1_000)?,
    };
    if gpus > 0 && milli == 0 {
        return Err("`gpu_milli` is 0: write thousandths of a GPU, or 0 in `num_gpu`".to_owned());
    }
    if gpus == 0 && milli > 0 {
        return Err(format!("`gpu_milli` is {milli} and `num_gpu` 0: a part of a GPU is a part of 1"));
    }
    if gpus > 1 && milli < 1_000 {
        return Err(format!("`gpu_milli` is {milli} of {gpus} GPUs: several are asked for as a whole, 1000 of each"));
    }
    let models = row.text("gpu_spec").split('|').map(str::trim).filter(|model| !model.is_empty());
    Ok(Request {
        name: row.text("name").to_owned(),
        cpus: row.cpus()?,
        memory: row.memory()?,
        gpus: usize::try_from(gpus).unwrap_or(0),
        share: Share(u32::try_from(milli * 1_000).unwrap_or(0)),
        models: models.map(str::to_owned).collect(),
    })
}

/// Splits a CSV text into rows of fields, each row with the number of its first line. Empty lines are no rows.
fn split(text: &str) -> Vec<(usize, Vec<String>)> {
    let (mut rows, mut row, mut field) = (Vec::new(), Vec::new(), String::new());
    let (mut line, mut first, mut quoted) = (1, 1, false);
    let mut letters = text.strip_prefix('\u{feff}').unwrap_or(text).chars().peekable();
    while let Some(letter) = letters.next() {
        line += usize::from(letter == '\n');
        match letter {
            '"' if quoted && letters.peek() == Some(&'"') => field.extend(letters.next()),
            '"' => quoted = !quoted,
            ',' if !quoted => row.push(std::mem::take(&mut field)),
            '\r' if !quoted => {}
            '\n' if !quoted => {
                row.push(std::mem::take(&mut field));
                let whole = std::mem::take(&mut row);
                if whole != [""] {
                    rows.push((first, whole));
                }
                first = line;
            }
            other => field.push(other),
        }
    }
    if !row.is_empty() || !field.is_empty() {
        row.push(field);
        rows.push((first, row));
    }
    rows
}

/// A file of arrivals. Other keys are ignored.
#[derive(Deserialize)]
struct Written {
    order: Vec<usize>,
    #[serde(default)]
    node_rank: Vec<u64>,
}

/// Reads an order in which the pods of a trace arrive.
pub(super) fn order(path: &Path, trace: &Trace, seed: u64) -> Result<Order, Failure> {
    let named = path.display();
    let help =
        "write {\"order\": [row of the pod that arrives first, counted from 0, …], \"node_rank\": [rank of each node]}";
    let refused = |words: String| rejected(&words, help);
    let written: Written =
        serde_json::from_str(&text_of(path)?).map_err(|error| refused(format!("{named}: {error}")))?;
    let pods = trace.requests.len();
    if let Some((number, pod)) = (1..).zip(&written.order).find(|(_, pod)| **pod >= pods) {
        return Err(refused(format!("{named}: arrival {number} is pod {pod}, and there are {pods}")));
    }
    if written.order.is_empty() {
        return Err(refused(format!("{named}: nothing arrives")));
    }
    let (ranks, nodes) = (written.node_rank.len(), trace.nodes.len());
    if ranks > 0 && ranks != nodes {
        return Err(refused(format!("{named}: `node_rank` has {ranks} entries, and there are {nodes} nodes")));
    }
    Ok(Order { name: named.to_string(), seed, arrivals: written.order, ranks: written.node_rank })
}
