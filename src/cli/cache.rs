//! `trainyard cache`: how large the cache is, keeping it within a limit, and whether it holds what it says.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::state::{StateArgs, broken, refuse_unwritable};
use super::{Exit, Failure, output, patience, session};
use crate::report::{text, wording};
use crate::run::cache::aside;
use crate::run::cache::keeper::folder;
use crate::run::cache::sweep::{Damaged, Size, Sweep, SweepError, Swept, Verified};
use crate::units::Bytes;

/// After this time nobody looks for what was set aside: a week.
const OLD: Duration = Duration::from_hours(24 * 7);

/// Show how large the cache is, make it smaller, or check it
#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Command {
    #[command(subcommand)]
    what: Option<What>,
    #[command(flatten)]
    common: Common,
}

#[derive(Args, Clone)]
struct Common {
    #[command(flatten)]
    state: StateArgs,
    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Subcommand)]
enum What {
    /// Remove what no result needs, and the results that were used longest ago until the rest fits; and what runs have set
    /// aside more than a week ago
    Gc {
        /// How much may stay, like 10GiB [default: all results that are known]
        #[arg(long, value_name = "SIZE", value_parser = session::size_or_zero)]
        max_size: Option<Bytes>,
        #[command(flatten)]
        common: Common,
    },
    /// Read everything again; what is damaged is removed and named
    Verify {
        #[command(flatten)]
        common: Common,
    },
}

impl Command {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        match self.what {
            None => self
                .common
                .tell(Sweep::open_to_look, |sweep| Ok((Exit::Done, Told::Size(sweep.size().map_err(broken)?)))),
            Some(What::Gc { max_size, common }) => {
                let aside = aside::forget_old(&common.writable()?, session::ago(OLD)).map_err(broken)?;
                common.tell(Sweep::open, |sweep| {
                    Ok((Exit::Done, Told::Swept(sweep.collect(max_size).map_err(broken)?, aside)))
                })
            }
            Some(What::Verify { common }) => {
                common.writable()?;
                common.tell(Sweep::open, |sweep| {
                    let verified =
                        patience::telling(sweep.transfer(), "what is kept", || sweep.verify()).map_err(broken)?;
                    let is_whole = verified.index.is_none() && verified.damaged.is_empty();
                    Ok((if is_whole { Exit::Done } else { Exit::Bug }, Told::Verified(verified)))
                })
            }
        }
    }
}

/// What is printed.
enum Told {
    Size(Size),
    /// And how many files and folders that had been set aside were removed, and their bytes.
    Swept(Swept, (usize, u64)),
    Verified(Verified),
}

impl Common {
    /// Returns the state folder, in which something may have to be removed; where there is none, nothing has.
    fn writable(&self) -> Result<PathBuf, Failure> {
        let folder = self.state.folder()?;
        if folder.exists() {
            refuse_unwritable(&folder)?;
        }
        Ok(folder)
    }

    fn tell(
        &self,
        open: impl FnOnce(&Path) -> Result<Option<Sweep>, SweepError>,
        work: impl FnOnce(&Sweep) -> Result<(Exit, Told), Failure>,
    ) -> Result<Exit, Failure> {
        let state = self.state.folder()?;
        let (exit, told) = match open(&folder(&state)).map_err(broken)? {
            Some(sweep) => work(&sweep)?,
            None => (Exit::Done, Told::Size(Size::default())),
        };
        if self.json { output::print_json(&told.json()) } else { output::print(&told.text()) }.map(|_| exit)
    }
}

impl Told {
    fn text(&self) -> String {
        let size = |size: &Size| {
            let (results, objects) = (wording::plural(size.results, "result"), wording::plural(size.objects, "file"));
            format!("{results}, {objects}, {}", size.bytes)
        };
        match self {
            Self::Size(now) => format!("{}\n", size(now)),
            Self::Swept(Swept { removed, left }, (count, bytes)) => {
                let aside = match count {
                    0 => String::new(),
                    _ => format!(
                        "removed, set aside by runs: {} in {}\n",
                        Bytes(*bytes),
                        wording::plural(*count, "place")
                    ),
                };
                format!("removed: {}\n{aside}left: {}\n", size(removed), size(left))
            }
            Self::Verified(Verified { index, seen, damaged }) => {
                let index = index.iter().map(|aside| {
                    format!(
                        "damaged: the index, which is now {}; results are made again when they are needed\n",
                        aside.display()
                    )
                });
                let mut said: String = index.collect();
                said.extend(damaged.iter().map(damaged_line));
                said.push_str(&format!("{}: ", size(seen)));
                said.push_str(&match damaged.len() {
                    0 => "all whole\n".to_owned(),
                    n => format!("{n} damaged and removed; what they stood for is made again when it is needed\n"),
                });
                said
            }
        }
    }

    fn json(&self) -> Value {
        let size = |size: &Size| json!({"results": size.results, "files": size.objects, "bytes": size.bytes.0});
        match self {
            Self::Size(now) => size(now),
            Self::Swept(Swept { removed, left }, (_, aside)) => {
                json!({"removed": size(removed), "left": size(left), "aside_removed_bytes": aside})
            }
            Self::Verified(Verified { index, seen, damaged }) => {
                let one = |damaged: &Damaged| json!({"object": damaged.digest.to_string(), "outputs": damaged.outputs});
                let damaged: Vec<Value> = damaged.iter().map(one).collect();
                json!({"verified": size(seen), "damaged": damaged, "index_moved_to": index})
            }
        }
    }
}

fn damaged_line(damaged: &Damaged) -> String {
    let outputs = match damaged.outputs.as_slice() {
        [] => "nothing that is still known".to_owned(),
        outputs => text::visible(&outputs.join(", ")).into_owned(),
    };
    format!("damaged: {} of {outputs}\n", &damaged.digest.to_string()[..16])
}
