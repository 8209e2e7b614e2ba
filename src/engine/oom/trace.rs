//! Traces of Python's exceptions: whether a program ended of a mistake, whatever it said of memory before.

/// What Python prints before an exception that nobody caught, or that somebody logged.
const TRACE: &str = "Traceback (most recent call last)";

/// What stands between two exceptions of which one led to the other.
const CHAIN: [&str; 2] = ["The above exception was the direct cause", "During handling of the above exception"];

/// What stands before the trace of an exception that ends no program: of a destructor, a thread and a coroutine.
const ASIDE: [&str; 3] = ["Exception ignored", "Exception in thread", "exception was never retrieved"];

/// What a mistake in a program, its arguments or its data raises. Neither want of memory nor the end of another process does.
const MISTAKES: [&str; 14] = [
    "ArithmeticError",
    "AssertionError",
    "AttributeError",
    "FileNotFoundError",
    "ImportError",
    "IndexError",
    "KeyError",
    "ModuleNotFoundError",
    "NameError",
    "NotImplementedError",
    "TypeError",
    "UnboundLocalError",
    "ValueError",
    "ZeroDivisionError",
];

/// Follows the traces in what is printed.
#[derive(Debug, Default)]
pub(super) struct Traces {
    /// Whether there was any.
    pub(super) any: bool,
    /// Where the last one began that may be what the program ended of; where it is of a chain, the first of the chain.
    begun: Option<u64>,
    next: Next,
}

/// What the next trace is of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Next {
    #[default]
    Own,
    Chained,
    Aside,
}

/// What a line has to do with a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// One begins.
    Trace,
    /// One that began at `traced_from` ends with a mistake: what was said before was not what the program ended of.
    Mistake { traced_from: u64 },
}

impl Traces {
    /// Takes in a line that begins at `at`.
    pub(super) fn hear(&mut self, line: &str, at: u64) -> Option<Heard> {
        if line.contains(TRACE) {
            self.any = true;
            match std::mem::take(&mut self.next) {
                Next::Own => self.begun = Some(at),
                Next::Chained => {}
                Next::Aside => self.begun = None,
            }
            return Some(Heard::Trace);
        }
        let has = |words: &&str| line.contains(*words);
        if CHAIN.iter().any(has) {
            self.next = Next::Chained;
        } else if ASIDE.iter().any(has) {
            self.next = Next::Aside;
        }
        self.begun.filter(|_| is_mistake(line)).map(|traced_from| Heard::Mistake { traced_from })
    }
}

/// Whether a line is the last of a trace and names a mistake. Those of one process of several, with its rank before them, are
/// left out: they may follow from another's want of memory.
fn is_mistake(line: &str) -> bool {
    let name = line.split_once(':').map_or(line, |(name, _)| name);
    MISTAKES.contains(&name)
}
