//! All tasks of a run looked up at once, before it starts: in parallel where files are looked at, in one pass over the
//! graph for the rest.
//!
//! What a task that is up to date made is known without looking: its readers take it from the record. So a chain costs
//! no more than the same number of independent tasks, and each file is looked at once.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::OnceLock;

use tracing::{debug, warn};

use super::files::links::lead_elsewhere;
use super::files::{Seen, in_parallel};
use super::index::{Action, Done, IndexError, Last, Open, USE_NOTED_EVERY};
use super::keeper::{CacheError, Keeper, Kept, Trouble, chain, now};
use super::key::{Content, Digest, Ingredients, changes};
use super::left::{Left, tell_changed};
use super::manifest::{Entry, Kind, decode};
use super::recipe::{Leftover, Recipe, Wanted, is_within};
use super::standstill::{self, Standstill};
use super::verdict::{Cached, Verdict, Why};
use crate::graph::{Edge, TaskGraph, TaskId, path};

/// What a survey is to do.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wish<'a> {
    /// `[n_tasks]`: tasks that run although they may be up to date; all other tasks where it is shorter.
    pub forced: &'a [bool],
    /// Where to put what is in the way of restored outputs; without it nothing is changed, only looked at.
    pub aside: Option<&'a Path>,
    /// What the verdicts follow from besides files: with it, what was seen is remembered where everything is up to date.
    pub claim: Option<&'a Digest>,
}

/// A survey under way.
struct Survey<'a> {
    keeper: &'a Keeper,
    wish: Wish<'a>,
    last: HashMap<String, Last>,
    /// What has begun and is not kept, by task.
    begun: HashMap<String, Open>,
    looks: Looks<'a>,
    /// What tasks that are up to date made, by path.
    made: HashMap<&'a str, Content>,
    /// Whether outputs were not in place, and were or are to be restored: what was seen around them does not hold any more.
    unsettled: bool,
    /// ms since the Unix epoch.
    now: i64,
    /// Keys whose use is to be noted.
    used: Vec<Digest>,
    /// When the use of some action is to be noted again, ms since the Unix epoch.
    use_due: i64,
    /// Tasks whose last key was another.
    renamed: Vec<(TaskId, Ingredients, Vec<Leftover>, Action)>,
}

/// Where no more than one in so many tasks is asked for, each is asked for by itself.
const ONE_BY_ONE: usize = 8;

/// Files that were looked at, each once.
struct Looks<'a> {
    index: HashMap<&'a str, usize>,
    list: Vec<Look<'a>>,
    seen: Vec<Seen>,
}

/// A path that is looked at.
#[derive(Clone, Copy)]
struct Look<'a> {
    path: &'a str,
    /// Whether links are followed.
    follow: bool,
    /// Whether it may be a file by its name only: of a folder it does not matter what is in it.
    is_named: bool,
}

impl Keeper {
    /// Returns the verdict of every task, by TaskId.
    ///
    /// # Errors
    /// Where the index cannot be read or written, or what is to be read was called off.
    pub fn survey(&self, graph: &TaskGraph, wish: Wish<'_>) -> Result<Vec<Verdict>, CacheError> {
        let last = OnceLock::new();
        let looks = std::thread::scope(|scope| {
            // The index is read while files are looked at.
            scope.spawn(|| last.set(self.last_of_all()));
            self.look_at_all()
        });
        let last = last.into_inner().unwrap_or_else(|| Ok(HashMap::new()))?;
        let begun = self.index.begun(&self.project)?;
        let mut survey = Survey {
            keeper: self,
            wish,
            last,
            begun,
            looks,
            made: HashMap::new(),
            unsettled: false,
            now: now(),
            used: Vec::new(),
            use_due: i64::MAX,
            renamed: Vec::new(),
        };
        survey.read_unknown();
        let mut verdicts = vec![Verdict::Done; graph.len()];
        for &task in &graph.order {
            verdicts[task.index()] = survey.judge(graph, task, &verdicts);
            if self.transfer().is_off() {
                if wish.aside.is_some() {
                    // What was read so far need not be read again.
                    self.index.record(&self.project, &self.root, &[], &self.files.take_fresh())?;
                }
                return Err(CacheError::CalledOff);
            }
        }
        if wish.aside.is_some() {
            survey.remember()?;
        }
        if let Some(claim) = wish.claim
            && let Some(seen) = survey.standstill(&verdicts)
            && let Err(error) = standstill::remember(&self.cache(), &self.project, claim, &seen)
        {
            debug!("what was seen is not remembered: {error}");
        }
        Ok(verdicts)
    }

    /// Returns what is known of the tasks that may be left out, by name.
    fn last_of_all(&self) -> Result<HashMap<String, Last>, IndexError> {
        let wanted = || self.tasks.iter().filter(|task| task.recipe.is_ok()).map(|task| &task.name);
        if wanted().count() > self.tasks.len() / ONE_BY_ONE {
            return self.index.tasks(&self.project);
        }
        let known = |name: &String| Ok(self.index.task(&self.project, name)?.map(|last| (name.clone(), last)));
        wanted().filter_map(|name| known(name).transpose()).collect()
    }

    /// Looks at every file that a task names.
    fn look_at_all(&self) -> Looks<'_> {
        let mut index = HashMap::new();
        let mut list = Vec::new();
        let recipes = || self.tasks.iter().filter_map(|task| task.recipe.as_ref().ok());
        let look = |follow, is_named| move |path| Look { path, follow, is_named };
        let outputs = recipes().flat_map(|recipe| &recipe.outputs).map(String::as_str).map(look(false, false));
        let inputs = recipes().flat_map(|recipe| &recipe.inputs).map(String::as_str).map(look(true, false));
        let named = recipes().flat_map(|recipe| &recipe.named).map(String::as_str).map(look(true, true));
        let tool = recipes().any(|recipe| recipe.is_op).then_some(self.tool.as_str()).map(look(true, false));
        for look in outputs.chain(inputs.filter(|look| !path::is_pattern(look.path))).chain(named).chain(tool) {
            index.entry(look.path).or_insert_with(|| {
                list.push(look);
                list.len() - 1
            });
        }
        // One that cannot be looked at is looked at again where it matters, and the error is told there.
        let seen = in_parallel(&list, |look| self.files.look(look.path, look.follow).unwrap_or(Seen::Other));
        Looks { index, list, seen }
    }

    /// Returns what an output is for its readers; `None` where that is to be looked at, as links in it may lead elsewhere.
    fn content_of(&self, entry: &Entry) -> Option<Content> {
        match entry.kind {
            Kind::File { mode, digest, .. } => Some(Content::of_file(digest, mode)),
            Kind::Tree { digest, .. } => {
                let manifest = String::from_utf8(self.objects.look_at(&digest).ok()?).ok()?;
                (!lead_elsewhere(&decode(&manifest)?)).then_some(Content::Tree(digest))
            }
            Kind::Folder { .. } | Kind::Link { .. } => None,
        }
    }
}

impl<'a> Survey<'a> {
    /// Reads the files whose content is needed and not known, in parallel.
    fn read_unknown(&self) {
        let keeper = self.keeper;
        let unknown = self.looks.index.iter().filter_map(|(path, at)| match self.looks.seen[*at] {
            Seen::File { stamp, .. } => keeper.files.known(path, &stamp).is_none().then_some((*path, stamp.size)),
            Seen::Absent | Seen::Folder { .. } | Seen::Link | Seen::Other => None,
        });
        let mut unknown: Vec<(&str, u64)> = unknown.collect();
        if unknown.is_empty() {
            return;
        }
        let recorded: HashMap<&str, u64> = self
            .last
            .values()
            .filter_map(|last| last.action.as_ref())
            .flat_map(|action| action.outputs.iter().map(|entry| (entry.path.as_str(), entry.size())))
            .collect();
        let outputs = keeper.tasks.iter().filter_map(|task| task.recipe.as_ref().ok());
        let outputs: HashSet<&str> = outputs.flat_map(|recipe| recipe.outputs.iter().map(String::as_str)).collect();
        // An output is worth reading only where it may be what was made.
        unknown.retain(|(path, size)| !outputs.contains(path) || recorded.get(path) == Some(size));
        // As above: errors are told where the content is asked for.
        in_parallel(&unknown, |(path, _)| drop(keeper.files.digest(path)));
    }

    fn judge(&mut self, graph: &TaskGraph, task: TaskId, verdicts: &[Verdict]) -> Verdict {
        let keeper = self.keeper;
        let recipe = match &keeper.tasks[task.index()].recipe {
            Ok(recipe) => recipe,
            Err(known) => return known.clone(),
        };
        if self.wish.forced.get(task.index()) == Some(&true) {
            return Verdict::Runs(Why::Forced);
        }
        let runs =
            |verdict: &Verdict| matches!(verdict, Verdict::Runs(_) | Verdict::MayRun { .. } | Verdict::BeingWritten);
        if let Some(edge) = graph.before.of(task).iter().find(|edge| runs(&verdicts[edge.task.index()])) {
            return Verdict::MayRun { after: edge.task };
        }
        // What is still to be restored cannot be looked at, except by its own name.
        let hidden = |edge: &&Edge| match &verdicts[edge.task.index()] {
            Verdict::Cached(cached) if self.wish.aside.is_none() => cached.restored.iter().any(|restored| {
                let hides = |input: &String| {
                    !self.made.contains_key(input.as_str())
                        && (is_within(input, &cached.restored) || is_within(restored, std::slice::from_ref(input)))
                };
                recipe.inputs.iter().any(hides)
            }),
            Verdict::Cached(_) | Verdict::Runs(_) | Verdict::MayRun { .. } | Verdict::BeingWritten | Verdict::Done => {
                false
            }
        };
        if let Some(edge) = graph.before.of(task).iter().find(hidden) {
            return Verdict::MayRun { after: edge.task };
        }
        match self.look_up(task, recipe) {
            Ok(verdict) => verdict,
            Err(Trouble::Lost(lost)) if !keeper.transfer().is_off() => {
                warn!(task = keeper.tasks[task.index()].name, "{lost}; it is made again");
                Verdict::Runs(Why::OutputsGone(recipe.outputs.first().cloned().unwrap_or_default()))
            }
            Err(trouble) => Verdict::Runs(Why::Unreadable(chain(&trouble))),
        }
    }

    fn look_up(&mut self, task: TaskId, recipe: &'a Recipe) -> Result<Verdict, Trouble> {
        let keeper = self.keeper;
        let Kept { name, .. } = &keeper.tasks[task.index()];
        let (last_key, made, last_action) = match self.last.remove(name) {
            Some(Last { key, made, action }) => (Some(key), made, action),
            None => (None, Vec::new(), None),
        };
        let begun = self.begun.remove(name);
        let has_begun = begun.is_some();
        let made = keeper.as_left(recipe, made.into_iter().chain(begun.into_iter().flat_map(|(_, left)| left)));
        let ingredients = keeper.ingredients(recipe, &made, |path, wanted| self.content(recipe, path, wanted))?;
        let key = ingredients.key();
        let is_same = last_key == Some(key);
        let known = if is_same { last_action } else { keeper.index.action(&key)? };
        let only_look = self.wish.aside.is_none();
        // What an attempt has made since, forced perhaps, is newer than what is known.
        let left = if has_begun { keeper.take_over(task, &key, only_look)? } else { Left::Nothing };
        let action = match (left, known) {
            (Left::Result(action), _) | (Left::BeingWritten | Left::Changed(_) | Left::Nothing, Some(action)) => action,
            (Left::Kept, _) => {
                self.last.extend(keeper.index.task(&keeper.project, name)?.map(|last| (name.clone(), last)));
                return self.look_up(task, recipe);
            }
            (Left::BeingWritten, None) if !only_look => return Ok(Verdict::BeingWritten),
            (Left::Changed(output), None) => {
                if !only_look {
                    tell_changed(name, &output);
                }
                return Ok(Verdict::Runs(Why::ChangedSince(output)));
            }
            (Left::BeingWritten | Left::Nothing, None) => {
                return Ok(Verdict::Runs(match last_key {
                    None => Why::New,
                    Some(_) if is_same => Why::OutputsGone(recipe.outputs.first().cloned().unwrap_or_default()),
                    Some(_) => {
                        let before = keeper.index.trace(&keeper.project, name)?;
                        Why::Changed(changes(&before, &ingredients.trace()))
                    }
                }));
            }
        };
        let mut wrong = Vec::new();
        for entry in &action.outputs {
            let seen = self.looks.index.get(entry.path.as_str()).map_or(Seen::Other, |at| self.looks.seen[*at]);
            if !keeper.is_in_place(recipe, entry, seen)? {
                wrong.push(entry);
            }
        }
        if let Some(gone) = wrong.iter().find(|entry| !keeper.can_put_back(entry)) {
            return Ok(Verdict::Runs(Why::OutputsGone(gone.path.clone())));
        }
        let restored = match self.wish.aside {
            Some(aside) if !wrong.is_empty() => match keeper.put_back((name, recipe), &action, aside)? {
                Some(restored) => restored,
                None => return Ok(Verdict::BeingWritten),
            },
            _ => wrong.iter().map(|entry| entry.path.clone()).collect(),
        };
        // Somebody else may have put them back just now.
        self.unsettled |= !wrong.is_empty();
        for (output, entry) in recipe.outputs.iter().zip(&action.outputs) {
            self.made.extend(keeper.content_of(entry).map(|content| (output.as_str(), content)));
        }
        let cached = Cached { log: action.log.clone(), restored };
        let used = if is_same && !action.is_due(self.now) { action.used } else { self.now };
        self.use_due = self.use_due.min(used + USE_NOTED_EVERY);
        if !is_same {
            self.renamed.push((task, ingredients, made, action));
        } else if action.is_due(self.now) {
            self.used.push(key);
        }
        Ok(Verdict::Cached(cached))
    }

    /// Returns what was seen, if every task is up to date and will be as long as that stays as it is.
    fn standstill<'v>(&'v self, verdicts: &'v [Verdict]) -> Option<Standstill<'v>> {
        let log = |verdict: &'v Verdict| match verdict {
            Verdict::Cached(Cached { log, restored }) if restored.is_empty() => Some(log.as_deref()),
            Verdict::Cached(_) | Verdict::Runs(_) | Verdict::MayRun { .. } | Verdict::BeingWritten | Verdict::Done => {
                None
            }
        };
        let logs = verdicts.iter().map(log).collect::<Option<Vec<_>>>()?;
        if self.unsettled {
            return None;
        }
        let recipes = || self.keeper.tasks.iter().filter_map(|task| task.recipe.as_ref().ok());
        // What matches a pattern is not known before it was looked for.
        if recipes().flat_map(|recipe| &recipe.inputs).any(|input| path::is_pattern(input)) {
            return None;
        }
        let files = &self.keeper.files;
        let is_sure = |look: &Look<'_>, seen: &Seen| match seen {
            // One that was changed a moment ago may change again and look the same.
            Seen::File { stamp, .. } => files.known(look.path, stamp).is_some(),
            Seen::Absent => true,
            Seen::Folder { .. } => look.is_named,
            Seen::Link | Seen::Other => false,
        };
        let looked = || self.looks.list.iter().zip(&self.looks.seen);
        if !looked().all(|(look, seen)| is_sure(look, seen)) {
            return None;
        }
        let looked = looked().map(|(look, seen)| (look.path, look.follow, *seen)).collect();
        Some(Standstill { until: self.use_due, logs, looked })
    }

    /// Returns what a file holds: from the record where a task before made it, otherwise as it was seen.
    fn content(&self, recipe: &Recipe, path: &str, wanted: Wanted) -> std::io::Result<Content> {
        if let Some(made) = self.made.get(path) {
            return Ok(*made);
        }
        let seen = self.looks.index.get(path).filter(|_| !self.unsettled).map(|at| self.looks.seen[*at]);
        let known = match seen {
            Some(Seen::Absent) => return Ok(Content::Absent),
            Some(Seen::File { stamp, mode }) => {
                self.keeper.files.known(path, &stamp).map(|digest| Content::of_file(digest, mode))
            }
            Some(Seen::Folder { .. } | Seen::Link | Seen::Other) | None => None,
        };
        let look = || self.keeper.files.content(path, wanted, &recipe.outputs);
        known.map_or_else(look, Ok)
    }

    /// Writes down what is known now.
    fn remember(&self) -> Result<(), IndexError> {
        let keeper = self.keeper;
        let done = self.renamed.iter().map(|(task, ingredients, made, action)| Done {
            name: &keeper.tasks[task.index()].name,
            key: ingredients.key(),
            trace: ingredients.trace(),
            made,
            action: Action { used: self.now, ..action.clone() },
            attempt: None,
        });
        keeper.index.record(&keeper.project, &keeper.root, &done.collect::<Vec<_>>(), &keeper.files.take_fresh())?;
        keeper.index.note_use(&self.used, self.now)
    }
}
