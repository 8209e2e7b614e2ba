//! `trainyard serve`: runs, devices and comparisons in a browser, while they happen.
//!
//! A page is one file of markup with scripts beside it, all of them in this program: nothing is fetched from elsewhere.
//! It shows what `--json` prints, and is told what changes. See [`guard`] for who may ask, [`clerk`] for how changes get
//! from the record to many browsers, [`pages`] for the addresses.

use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use clap::Args;
use miette::Diagnostic;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use super::state::{self, StateArgs, broken};
use super::{Exit, Failure, output, session};
use crate::report::text;
use guard::Guard;

mod act;
mod answer;
mod clerk;
mod followed;
mod guard;
mod list;
mod listeners;
mod log;
mod pages;

/// Bytes of a token: nobody guesses 128 bits.
const TOKEN: usize = 16;
/// The fewest characters of a token from a file.
const SHORTEST: usize = 16;

/// Show runs, devices and comparisons in a browser, while they happen
///
/// Prints an address with a token, which a browser is asked for once. Only this machine can reach it, unless --bind says
/// otherwise; from another one, `ssh -L 7070:localhost:7070 HOST` makes it reachable there.
#[derive(Args)]
pub(super) struct Command {
    /// The port; 0 takes any that is free
    #[arg(long, default_value_t = 7070)]
    port: u16,
    /// The address to listen at
    #[arg(long, value_name = "ADDRESS", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    bind: IpAddr,
    /// Another name by which this machine is asked, behind a proxy for example
    #[arg(long, value_name = "NAME")]
    host: Vec<String>,
    /// Take the token from a file instead of a new one each time
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Ask for no token: everybody on this machine may look, and nobody may change anything
    #[arg(long, conflicts_with = "token_file")]
    no_token: bool,
    #[command(flatten)]
    state: StateArgs,
}

/// Why nothing is served.
#[derive(Debug, Error, Diagnostic)]
enum Refusal {
    #[error("--no-token is for this machine only, and {0} can be reached from others")]
    #[diagnostic(help("leave --no-token or --bind out"))]
    Open(IpAddr),
    #[error("there is no folder {0}")]
    #[diagnostic(help("it is made by the first run: `trainyard run FILE --state DIR`; `mkdir` makes it before"))]
    NoFolder(String),
    #[error("the token file {0} cannot be read: {1}")]
    #[diagnostic(help("`openssl rand -hex 16 > FILE` makes one"))]
    NoTokenFile(String, std::io::Error),
    #[error("the token in {0} is too short or has characters other than letters, digits, - and _")]
    #[diagnostic(help("at least {SHORTEST} of them; `openssl rand -hex 16 > FILE` makes one"))]
    PoorToken(String),
    #[error("cannot listen at {0}: {1}")]
    #[diagnostic(help("`--port 0` takes any port that is free"))]
    Taken(SocketAddr, std::io::Error),
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self { exit: Exit::Usage, report: refusal.into() }
    }
}

impl Command {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        if self.no_token && !self.bind.is_loopback() {
            return Err(Refusal::Open(self.bind).into());
        }
        if let Some(named) = self.state.named().filter(|named| !named.is_dir()) {
            return Err(Refusal::NoFolder(text::visible(&named.to_string_lossy()).into_owned()).into());
        }
        let token = if self.no_token { None } else { Some(self.token()?) };
        let dir = session::absolute(&self.state.folder().or_else(|_| future_folder())?);
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build().map_err(broken)?;
        runtime.block_on(async {
            let address = SocketAddr::new(self.bind, self.port);
            let listener = TcpListener::bind(address).await.map_err(|error| Refusal::Taken(address, error))?;
            let address = listener.local_addr().map_err(broken)?;
            let mut hosts = self.host.clone();
            hosts.push(state::this_host());
            let guard = Guard { token, hosts, port: address.port() };
            output::print(&greeting(&guard, address, &dir))?;
            let desk = clerk::Desk::new(&dir).map_err(broken)?;
            let served = axum::serve(listener, pages::router(desk, guard));
            let mut terminated = signal(SignalKind::terminate()).map_err(broken)?;
            tokio::select! {
                ended = served => ended.map_err(broken)?,
                _ = tokio::signal::ctrl_c() => {}
                _ = terminated.recv() => {}
            }
            // Browsers that listen would keep it from ending.
            Ok(Exit::Done)
        })
    }

    fn token(&self) -> Result<String, Failure> {
        let Some(path) = &self.token_file else { return random().map_err(broken) };
        let named = text::visible(&path.to_string_lossy()).into_owned();
        let token = std::fs::read_to_string(path).map_err(|error| Refusal::NoTokenFile(named.clone(), error))?;
        let token = token.trim();
        let plain = token.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
        if token.len() < SHORTEST || !plain {
            return Err(Refusal::PoorToken(named).into());
        }
        Ok(token.to_owned())
    }
}

/// Returns where the first run of this folder will be recorded.
fn future_folder() -> Result<PathBuf, Failure> {
    Ok(std::env::current_dir().map_err(broken)?.join(state::FOLDER))
}

fn random() -> std::io::Result<String> {
    let mut bytes = [0; TOKEN];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn greeting(guard: &Guard, address: SocketAddr, dir: &Path) -> String {
    let query = guard.token.as_ref().map_or_else(String::new, |token| format!("?token={token}"));
    let host = match address.ip() {
        ip if ip.is_unspecified() => state::this_host(),
        IpAddr::V6(ip) => format!("[{ip}]"),
        IpAddr::V4(ip) => ip.to_string(),
    };
    let reach = if address.ip().is_loopback() { "" } else { "\nother machines can reach it, unencrypted" };
    let what = if guard.writes() { "" } else { ", to look only" };
    format!(
        "http://{host}:{}/{query}\nruns in {}{what}; Ctrl-C ends it{reach}\n",
        address.port(),
        text::visible(&dir.to_string_lossy())
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_long_and_never_the_same() {
        let (a, b) = (random().unwrap(), random().unwrap());
        assert!(a.len() == 2 * TOKEN && a != b);
    }
}
