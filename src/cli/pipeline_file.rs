//! The pipeline file on the command line: `FILE`, `--set` and `--max-tasks`, read and checked alike by every
//! subcommand that takes one.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::Args;
use clap::builder::{RangedU64ValueParser, TypedValueParser};

use super::problems::Texts;
use super::{Exit, Failure};
use crate::graph::{self, Examined, Limits, TaskGraph};
use crate::run::preflight;
use crate::run::store::{Header, Invocation};
use crate::spec::{self, Pipeline, Problem, Source, op, problem};

/// Arguments that name a pipeline.
#[derive(Args, Clone, Debug)]
pub(super) struct PipelineFile {
    /// The pipeline file
    pub(super) file: PathBuf,
    /// Override a value of the file: `--set train.with.epochs=5`, `--set defaults.retries=2`
    #[arg(long = "set", value_name = "STAGE.KEY=VALUE")]
    pub(super) sets: Vec<String>,
    /// Most tasks that the matrix of one stage may make
    #[arg(long, value_name = "N", default_value_t = Limits::default().max_tasks, value_parser = at_least_one())]
    pub(super) max_tasks: usize,
}

fn at_least_one() -> impl TypedValueParser<Value = usize> {
    RangedU64ValueParser::<usize>::new().range(1..)
}

/// A pipeline file that has been read.
#[derive(Debug)]
pub(super) struct Loaded {
    /// What it means, or what is wrong with it, sorted by place.
    pub(super) result: Result<(Pipeline, TaskGraph), Vec<Problem>>,
    /// The texts that problems point into.
    pub(super) texts: Texts,
    /// BLAKE3 of the file in hexadecimal digits.
    pub(super) digest: String,
    /// What it holds.
    pub(super) bytes: Vec<u8>,
}

impl PipelineFile {
    /// The file of a run, read as that run has read it.
    pub(super) fn of(run: &Header) -> Self {
        let Invocation { sets, max_tasks, .. } = &run.invocation;
        // Records of earlier versions do not tell.
        let max_tasks = if *max_tasks == 0 { Limits::default().max_tasks } else { *max_tasks };
        Self { file: run.file.clone().into(), sets: sets.clone(), max_tasks }
    }

    /// Returns the folder of the file: what its paths are relative to.
    pub(super) fn folder(&self) -> &Path {
        match self.file.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        }
    }

    /// Whether the file has this digest.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub(super) fn has(&self, digest: &str) -> std::io::Result<bool> {
        Ok(blake3::hash(&std::fs::read(&self.file)?).to_hex().as_str() == digest)
    }

    /// Reads and checks the file, and prints all problems if it has any.
    ///
    /// `run` also wants its inputs to be there: `with_files` checks what can be seen in the file system.
    pub(super) fn load(&self, with_files: bool) -> Result<Result<(Pipeline, TaskGraph), Exit>, Failure> {
        let loaded = self.read(with_files)?;
        Ok(loaded.result.map_err(|problems| loaded.texts.reject(&problems)))
    }

    /// Reads and checks the file. The error is a file that cannot be read at all.
    pub(super) fn read(&self, with_files: bool) -> Result<Loaded, Failure> {
        let name = self.file.display().to_string();
        let bytes = std::fs::read(&self.file).map_err(|error| Failure {
            exit: Exit::Rejected,
            report: miette::miette!("cannot read {name}: {error}"),
        })?;
        let digest = blake3::hash(&bytes).to_hex().to_string();
        let (source, problem) = Source::from_bytes(name, bytes.clone());
        let result = match problem {
            Some(problem) => Err(vec![problem]),
            None => self.examine(&source, with_files),
        };
        let texts = Texts::new(source, &self.sets);
        if let Ok((pipeline, _)) = &result {
            texts.warn(&spec::without_effect(pipeline));
        }
        Ok(Loaded { result, texts, digest, bytes })
    }

    /// Returns the absolute names of the folder, as it is written and with links resolved.
    fn roots(&self) -> Vec<String> {
        let written = std::path::absolute(self.folder()).ok();
        let resolved = self.folder().canonicalize().ok();
        let roots = written.into_iter().chain(resolved);
        roots.filter_map(|root| root.to_str().map(graph::path::normalise)).collect()
    }

    fn examine(&self, source: &Source, with_files: bool) -> Result<(Pipeline, TaskGraph), Vec<Problem>> {
        let limits = Limits { max_tasks: self.max_tasks };
        let Examined { pipeline, graph, mut problems, torn } =
            graph::examine(source, &self.sets, op::CATALOGUE, limits, &self.roots());
        if with_files && !torn {
            problems.extend(preflight::check(&pipeline, &graph, self.folder()));
            problem::sort(&mut problems);
        }
        if problems.is_empty() { Ok((pipeline, graph)) } else { Err(problems) }
    }
}

/// Returns where a state folder keeps a pipeline file that has this digest.
pub(super) fn kept(state: &Path, digest: &str) -> PathBuf {
    state.join("pipelines").join(format!("{digest}.toml"))
}

/// Keeps a pipeline file as it is now, once for all runs of it, so that it can be told later what changed. Nobody but its
/// owner can read it: there may be secrets in its `env`.
pub(super) fn keep(state: &Path, digest: &str, bytes: &[u8]) {
    let path = kept(state, digest);
    if path.is_file() {
        return;
    }
    let write = || {
        std::fs::create_dir_all(state.join("pipelines"))?;
        // Whoever finds it finds all of it.
        let new = path.with_extension(format!("{}.new", std::process::id()));
        let _ = std::fs::remove_file(&new);
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
        file.write_all(bytes)?;
        std::fs::rename(&new, &path)
    };
    if let Err(error) = write() {
        tracing::debug!(%error, "the pipeline file is not kept");
    }
}

/// Returns the pipeline that a run began with; `None` where it was not kept and the file has changed since, or where this
/// version reads it differently.
pub(super) fn recall(state: &Path, run: &Header) -> Option<(Pipeline, TaskGraph)> {
    let file_digest = &run.invocation.file_digest;
    let is_it = |bytes: &Vec<u8>| blake3::hash(bytes).to_hex().as_str() == file_digest;
    let read = |path: &Path| std::fs::read(path).ok().filter(is_it);
    let bytes = read(&kept(state, file_digest)).or_else(|| read(Path::new(&run.file)))?;
    let (source, _) = Source::from_bytes(run.file.clone(), bytes);
    PipelineFile::of(run).examine(&source, false).ok()
}
