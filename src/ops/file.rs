//! Files: read whole or by line, gzipped or not; written so that no reader ever sees half of one.
//!
//! Does not know what the files hold.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::Path;

use flate2::bufread::MultiGzDecoder;
use serde::Serialize;

use crate::error::OpError;

/// Opens a text, unpacking it if it is gzipped: told by its first two bytes, not by its name.
pub(crate) fn open(path: &Path) -> Result<Box<dyn BufRead>, OpError> {
    let failed = OpError::io("read", path);
    let start = || -> io::Result<Box<dyn BufRead>> {
        let mut file = BufReader::with_capacity(1 << 16, File::open(path)?);
        if file.fill_buf()?.starts_with(&[0x1f, 0x8b]) {
            return Ok(Box::new(BufReader::new(MultiGzDecoder::new(file))));
        }
        Ok(Box::new(file))
    };
    start().map_err(failed)
}

/// Reads a file whole.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, OpError> {
    let mut bytes = Vec::new();
    File::open(path).and_then(|mut file| file.read_to_end(&mut bytes)).map_err(OpError::io("read", path))?;
    Ok(bytes)
}

/// Returns a path as results name it: relative to the working directory where it lies below, so that the same work gives
/// the same result in every folder.
pub(crate) fn named(path: &Path) -> String {
    let here = std::env::current_dir().unwrap_or_default();
    path.strip_prefix(here).unwrap_or(path).display().to_string()
}

/// Writes a file whole or not at all: into the same folder under another name, to the disk, then renamed.
/// Makes the folder if it is missing.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<(), OpError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let partial = folder.join(format!(".{name}.{}.partial", std::process::id()));
    let write = || -> io::Result<()> {
        fs::create_dir_all(folder)?;
        let mut file = File::create(&partial)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&partial, path)?;
        File::open(folder)?.sync_all()
    };
    write().map_err(|error| {
        // The half-written file is of no use; that it may not be removable either changes nothing.
        let _ = fs::remove_file(&partial);
        OpError::io("write", path)(error)
    })
}

/// Writes a value as JSON that a person can read, whole or not at all.
pub(crate) fn write_json(path: &Path, value: &impl Serialize) -> Result<(), OpError> {
    let text = serde_json::to_string_pretty(value).map_err(io::Error::from).map_err(OpError::io("write", path))?;
    write(path, format!("{text}\n").as_bytes())
}

#[cfg(test)]
mod tests {
    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    #[test]
    fn a_gzipped_file_reads_like_a_plain_one_whatever_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data.csv");
        let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
        packed.write_all(b"1,2\n").unwrap();
        fs::write(&path, packed.finish().unwrap()).unwrap();
        let mut text = String::new();
        open(&path).unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "1,2\n");
    }

    #[test]
    fn a_failed_write_leaves_the_old_file_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("taken");
        fs::create_dir(&path).unwrap();
        fs::write(path.join("inside"), "old").unwrap();
        let error = write(&path, b"new").unwrap_err().to_string();
        assert!(error.starts_with("cannot write "), "{error}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_missing_folder_is_made() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b/file");
        write(&path, b"text").unwrap();
        assert_eq!(read(&path).unwrap(), b"text");
    }
}
