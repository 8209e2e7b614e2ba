//! What a test does: makes a machine, changes it, and lets processes hold memory on it.

use std::path::{Path, PathBuf};
use std::{env, fs, io};

use crate::state::{Card, Folder, Machine, VARIABLE, replace};

/// An emulated machine in a folder of its own, which goes when this is dropped.
#[derive(Debug)]
pub struct Scene {
    folder: tempfile::TempDir,
}

impl Scene {
    /// Makes a machine with these cards. Those without UUID or bus id get one by their position.
    pub fn new(cards: Vec<Card>) -> io::Result<Self> {
        let scene = Self { folder: tempfile::tempdir()? };
        fs::create_dir(scene.folder.path().join("held"))?;
        scene.set(Machine { init: 0, driver: "580.65.06".to_owned(), cards: Vec::new() })?;
        scene.change(|machine| machine.cards = cards)?;
        Ok(scene)
    }

    /// Changes the machine, at once for every program that looks at it.
    pub fn change(&self, change: impl FnOnce(&mut Machine)) -> io::Result<()> {
        let mut machine = self.state().machine()?;
        change(&mut machine);
        for (index, card) in machine.cards.iter_mut().enumerate() {
            if card.uuid.is_empty() {
                card.uuid = format!("GPU-{index:08x}-0000-4000-8000-000000000000");
            }
            if card.bus.is_empty() {
                card.bus = format!("00000000:{:02X}:00.0", 0x10 + index);
            }
        }
        self.set(machine)
    }

    fn set(&self, machine: Machine) -> io::Result<()> {
        for (index, card) in machine.cards.iter().enumerate() {
            // For `hold.sh`, which reads no JSON.
            let room = card.mib.saturating_sub(card.reserved_mib + card.nobodys_mib + card.desktop_mib);
            replace(&self.folder.path().join(format!("room-{index}")), room.to_string().as_bytes())?;
            replace(&self.folder.path().join(format!("card-{}", card.uuid)), index.to_string().as_bytes())?;
            // NVML's number for exclusive-process.
            for (mark, is_set) in [("late", card.releases_late), ("single", card.compute_mode == Some(3))] {
                let mark = self.folder.path().join(format!("{mark}-{index}"));
                if is_set {
                    fs::write(mark, "")?;
                } else if mark.exists() {
                    fs::remove_file(mark)?;
                }
            }
        }
        self.state().write(&machine)
    }

    fn state(&self) -> Folder {
        Folder(self.folder.path().to_owned())
    }

    /// Lets a living process hold memory on a card, or on one of its slices (`"2.0"`); 0 MiB gives it back.
    pub fn hold(&self, pid: u32, place: &str, mib: u64) -> io::Result<()> {
        replace(&self.folder.path().join("held").join(format!("{pid}-{place}")), mib.to_string().as_bytes())
    }

    /// Whether anybody has called a driver that is stuck.
    #[must_use]
    pub fn is_waited_for(&self) -> bool {
        self.state().waits().exists()
    }

    /// Returns the variables under which a program sees this machine.
    #[must_use]
    pub fn environment(&self) -> Vec<(&'static str, PathBuf)> {
        vec![("TRAINYARD_NVML", library()), (VARIABLE, self.folder.path().to_owned())]
    }

    /// Returns the shared library as a driver would have it that lacks these functions.
    pub fn old_driver(&self, lacks: &[&str]) -> io::Result<PathBuf> {
        let mut bytes = fs::read(library())?;
        for name in lacks {
            rename_symbol(&mut bytes, name);
        }
        let path = self.folder.path().join("libnvidia-ml.so.1");
        fs::write(&path, bytes)?;
        Ok(path)
    }

    /// Returns a program that stands in for a training: `hold.sh MIB SECONDS [RAMP]`, see there.
    #[must_use]
    pub fn trainer() -> &'static Path {
        Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/hold.sh"))
    }
}

/// Returns the shared library: cargo puts it beside the test programs that depend on this crate.
fn library() -> PathBuf {
    let test = env::current_exe().expect("a test program has a path");
    test.with_file_name("libmock_nvml.so")
}

/// Renames a function in the table of names, where looking it up then fails as if it had never been there.
fn rename_symbol(bytes: &mut [u8], name: &str) {
    let wanted: Vec<u8> = [b"\0", name.as_bytes(), b"\0"].concat();
    for at in 0..bytes.len().saturating_sub(wanted.len()) {
        if bytes[at..].starts_with(&wanted) {
            bytes[at + 1] = b'x';
        }
    }
}
