//! The command line: one file per subcommand, one place for exit codes and for how an error looks.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::report::text;

mod again;
mod aside;
mod attach;
mod bench;
mod cache;
mod calibrate;
mod cancel;
mod check;
mod completions;
mod contradiction;
mod detach;
mod devices;
mod diff;
mod disk;
mod dry_run;
mod explain;
mod follow;
mod fullscreen;
mod gpu_check;
mod holes;
mod log_out;
mod logs;
mod metrics;
mod models;
mod no_plan;
mod on_finish;
mod orphans;
mod output;
mod patience;
mod pipeline_file;
mod plan;
mod planning;
mod presence;
mod problems;
mod readings;
mod rehearsal;
mod replay;
mod resume;
mod rotate;
mod run;
mod runs;
mod runs_gc;
mod schema;
mod searching;
mod sentinel;
mod serve;
mod session;
mod shapes;
mod show;
mod spare;
mod state;
mod stops;
mod threads;
mod timing;
mod trace;
mod up_to_date;
mod wake;
mod warden;
mod watch;
mod wrap;

/// How a command ended, as the shell sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Everything asked for was done.
    Done = 0,
    /// A stage failed.
    StageFailed = 1,
    /// The command line is wrong.
    Usage = 2,
    /// The pipeline or fleet file was rejected.
    Rejected = 3,
    /// A task can never be placed on this fleet.
    Impossible = 4,
    /// A bug of ours, or the disk.
    Bug = 70,
    /// Stopped by Ctrl-C or a signal.
    Interrupted = 130,
}

impl Exit {
    /// Returns the ending that has this code.
    fn of_code(code: i32) -> Option<Self> {
        let all = [
            Self::Done,
            Self::StageFailed,
            Self::Usage,
            Self::Rejected,
            Self::Impossible,
            Self::Bug,
            Self::Interrupted,
        ];
        all.into_iter().find(|exit| *exit as i32 == code)
    }
}

/// A command that could not do its work: what to print and how to exit.
#[derive(Debug)]
pub struct Failure {
    /// The exit code.
    pub exit: Exit,
    /// What is printed to standard error.
    pub report: miette::Report,
}

impl Failure {
    /// Makes a failure of an error.
    pub(crate) fn because(exit: Exit, error: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self { exit, report: miette::IntoDiagnostic::into_diagnostic(Err::<(), _>(error)).expect_err("it is an error") }
    }
}

/// Packs a training pipeline onto the GPUs you have.
#[derive(Parser)]
#[command(version, about)]
struct Cli {
    #[command(flatten)]
    trace: trace::Args,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Check(check::Command),
    Plan(plan::Command),
    Bench(bench::Command),
    Runs(runs::Command),
    Show(show::Command),
    Logs(logs::Command),
    Diff(diff::Command),
    Watch(watch::Command),
    Metrics(metrics::Command),
    Serve(serve::Command),
    Completions(completions::Command),
    Schema(schema::Command),
    Devices(devices::Command),
    Explain(explain::Command),
    Run(run::Command),
    Resume(resume::Command),
    Cancel(cancel::Command),
    Cache(cache::Command),
    GpuCheck(gpu_check::Command),
    #[command(hide = true)]
    Warden(warden::Command),
    #[command(hide = true)]
    Sentinel(sentinel::Command),
}

/// Has all threads take memory from one heap. They live short and take little, and what they free in heaps of their own
/// a long run would keep.
fn share_one_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: no preconditions; no other thread runs yet.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// Has a write beyond the limit of file sizes (`ulimit -f`) fail, as one on a full disk does, instead of ending us.
fn outlive_large_files() {
    // SAFETY: no handler is installed.
    unsafe {
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
    }
}

/// Runs the command line of this process and returns its exit code.
#[must_use]
pub fn main() -> ExitCode {
    share_one_heap();
    outlive_large_files();
    wrap::begin();
    let cli = Cli::parse();
    trace::start(&cli.trace);
    let ended: Result<Exit, Failure> = match cli.command {
        Command::Check(command) => command.run(),
        Command::Plan(command) => command.run(),
        Command::Bench(command) => command.run(),
        Command::Runs(command) => command.run(),
        Command::Show(command) => command.run(),
        Command::Logs(command) => command.run(),
        Command::Diff(command) => command.run(),
        Command::Watch(command) => command.run(),
        Command::Metrics(command) => command.run(),
        Command::Serve(command) => command.run(),
        Command::Completions(command) => command.run(),
        Command::Schema(command) => command.run(),
        Command::Devices(command) => command.run(),
        Command::Explain(command) => command.run(),
        Command::Run(command) => command.run(),
        Command::Resume(command) => command.run(),
        Command::Cancel(command) => command.run(),
        Command::GpuCheck(command) => command.run(),
        Command::Cache(command) => command.run(),
        Command::Warden(command) => command.run(),
        Command::Sentinel(command) => match command.run() {
            Ok(code) => return ExitCode::from(code),
            Err(failure) => Err(failure),
        },
    };
    let exit = ended.unwrap_or_else(|failure| {
        output::say(&text::coloured(&format!("{:?}", failure.report)));
        failure.exit
    });
    trace::flush();
    ExitCode::from(exit as u8)
}
