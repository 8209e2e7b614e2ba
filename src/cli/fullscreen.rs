//! A terminal taken over as a whole: raw keys, the alternate screen, and everything put back afterwards, whichever way
//! it ends: by itself, by a signal that ends this process, or by a panic.

use std::io::{self, Stdout};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use ratatui::Frame;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::crossterm::terminal::{
    BeginSynchronizedUpdate, EndSynchronizedUpdate, EnterAlternateScreen, enable_raw_mode,
};
use ratatui::crossterm::{execute, queue};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Signal, getpid, kill_process};
use signal_hook::SigId;
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::{flag, low_level};

/// What ends this process, unless it is caught.
const ENDS: [i32; 4] = [SIGHUP, SIGINT, SIGQUIT, SIGTERM];

/// A key that was pressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Char(char),
    Up,
    Down,
    PageUp,
    PageDown,
    Home,
    End,
    Enter,
    Tab,
    Escape,
    Backspace,
    Interrupt,
    Suspend,
}

/// The terminal behind standard input and output.
pub(super) struct FullScreen {
    terminal: ratatui::Terminal<ratatui::backend::CrosstermBackend<Stdout>>,
    /// The last signal that came; 0 before.
    signal: Arc<AtomicUsize>,
    handlers: Vec<SigId>,
}

impl FullScreen {
    /// Takes the terminal over. A panic gives it back before its message is printed.
    pub(super) fn enter() -> io::Result<Self> {
        let signal = Arc::new(AtomicUsize::new(0));
        // Signals first: there is no moment at which one of them would leave raw keys behind.
        // The second one is obeyed at once, should the first not be noticed.
        let again = Arc::new(AtomicBool::new(false));
        let mut handlers = Vec::new();
        for number in ENDS {
            handlers.push(flag::register_conditional_default(number, Arc::clone(&again))?);
            handlers.push(flag::register(number, Arc::clone(&again))?);
            handlers.push(flag::register_usize(number, Arc::clone(&signal), number.unsigned_abs() as usize)?);
        }
        let terminal = ratatui::try_init().inspect_err(|_| drop(ratatui::try_restore()))?;
        Ok(Self { terminal, signal, handlers })
    }

    /// Shows a screen; only what changed is written, and the terminal shows it as one.
    pub(super) fn show(&mut self, draw: impl FnOnce(&mut Frame<'_>)) -> io::Result<()> {
        queue!(self.terminal.backend_mut(), BeginSynchronizedUpdate)?;
        self.terminal.draw(draw)?;
        execute!(self.terminal.backend_mut(), EndSynchronizedUpdate)
    }

    /// Waits for keys, but not longer than `wait`.
    pub(super) fn keys(&self, wait: Duration) -> io::Result<Vec<Key>> {
        let mut keys = Vec::new();
        // Looked at before crossterm does, which would read from a terminal that is gone without end.
        if input(wait)? != Input::Waiting {
            return Ok(keys);
        }
        while event::poll(Duration::ZERO)? {
            match event::read()? {
                Event::Key(pressed) => keys.extend(key(pressed)),
                Event::Paste(text) => keys.extend(text.chars().filter(|c| !c.is_control()).map(Key::Char)),
                Event::FocusGained | Event::FocusLost | Event::Mouse(_) | Event::Resize(..) => {}
            }
        }
        Ok(keys)
    }

    /// Whether a signal asks this process to end, or the terminal is gone.
    pub(super) fn is_over(&self) -> bool {
        let is_gone = || matches!(input(Duration::ZERO), Ok(Input::Gone));
        self.signal.load(Ordering::SeqCst) != 0 || is_gone()
    }

    /// Gives the terminal back and ends this process by the signal that came; returns where there was none.
    pub(super) fn leave(self) -> io::Result<()> {
        let signal = self.signal.load(Ordering::SeqCst);
        drop(self);
        match i32::try_from(signal) {
            Ok(signal @ 1..) => low_level::emulate_default_handler(signal),
            _ => Ok(()),
        }
    }

    /// Gives the terminal to the shell until this process is continued.
    pub(super) fn suspend(&mut self) -> io::Result<()> {
        self.terminal.show_cursor()?;
        ratatui::try_restore()?;
        kill_process(getpid(), Signal::TSTP)?;
        enable_raw_mode()?;
        execute!(self.terminal.backend_mut(), EnterAlternateScreen)?;
        self.terminal.clear()
    }
}

impl Drop for FullScreen {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing put back.
        let _ = self.terminal.show_cursor();
        let _ = ratatui::try_restore();
        for handler in self.handlers.drain(..) {
            low_level::unregister(handler);
        }
    }
}

/// What is to be had from the terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Input {
    None,
    Waiting,
    Gone,
}

/// Waits for input, but not longer than `wait`.
fn input(wait: Duration) -> io::Result<Input> {
    let stdin = io::stdin();
    let mut one = [PollFd::new(&stdin, PollFlags::IN)];
    let wait = Timespec { tv_sec: 0, tv_nsec: wait.subsec_nanos().into() };
    match poll(&mut one, Some(&wait)) {
        Ok(0) | Err(rustix::io::Errno::INTR) => Ok(Input::None),
        Ok(_) if one[0].revents().intersects(PollFlags::HUP | PollFlags::ERR) => Ok(Input::Gone),
        Ok(_) => Ok(Input::Waiting),
        Err(error) => Err(error.into()),
    }
}

/// Returns the key that was pressed; `None` for one that means nothing here.
#[expect(clippy::wildcard_enum_match_arm, reason = "keyboards have more keys than are used")]
fn key(pressed: KeyEvent) -> Option<Key> {
    if pressed.kind == KeyEventKind::Release {
        return None;
    }
    let control = pressed.modifiers.contains(KeyModifiers::CONTROL);
    Some(match pressed.code {
        KeyCode::Char('c') if control => Key::Interrupt,
        KeyCode::Char('z') if control => Key::Suspend,
        KeyCode::Char(_) if control || pressed.modifiers.contains(KeyModifiers::ALT) => return None,
        KeyCode::Char(letter) => Key::Char(letter),
        KeyCode::Up => Key::Up,
        KeyCode::Down => Key::Down,
        KeyCode::PageUp => Key::PageUp,
        KeyCode::PageDown => Key::PageDown,
        KeyCode::Home => Key::Home,
        KeyCode::End => Key::End,
        KeyCode::Enter => Key::Enter,
        KeyCode::Tab | KeyCode::BackTab => Key::Tab,
        KeyCode::Esc => Key::Escape,
        KeyCode::Backspace => Key::Backspace,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_told_apart() {
        let of = |code, modifiers| key(KeyEvent::new(code, modifiers));
        assert_eq!(of(KeyCode::Char('q'), KeyModifiers::NONE), Some(Key::Char('q')));
        assert_eq!(of(KeyCode::Char('G'), KeyModifiers::SHIFT), Some(Key::Char('G')));
        assert_eq!(of(KeyCode::Char('c'), KeyModifiers::CONTROL), Some(Key::Interrupt));
        assert_eq!(of(KeyCode::Char('c'), KeyModifiers::ALT), None);
        assert_eq!(of(KeyCode::F(5), KeyModifiers::NONE), None);
    }
}
