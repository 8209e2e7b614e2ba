//! Arrays with a description, as one safetensors file: what every op leaves for the next.
//!
//! The description is one JSON text in the file's metadata, so that equal contents give equal bytes. Does not know
//! what the arrays mean.

use std::collections::HashMap;
use std::path::Path;

use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::{OpError, Place};
use crate::file;

/// Key of the description in the metadata.
const KEY: &str = "trainyard";

/// What an archive is; a reader that expects another one says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Content {
    Dataset,
    Model,
    Checkpoint,
}

impl Content {
    fn words(self) -> &'static str {
        match self {
            Self::Dataset => "a data set",
            Self::Model => "a model",
            Self::Checkpoint => "a checkpoint",
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Description<T> {
    content: Content,
    about: T,
}

/// One array in host memory.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Array {
    /// Its name in the file.
    pub(crate) name: String,
    /// Length of each dimension.
    pub(crate) shape: Vec<usize>,
    /// Row-major.
    pub(crate) values: Values,
}

/// The numbers of an array.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Values {
    F32(Vec<f32>),
    I64(Vec<i64>),
}

/// What [`read`] found.
pub(crate) struct Archive<T> {
    /// The description.
    pub(crate) about: T,
    arrays: HashMap<String, Array>,
    path: std::path::PathBuf,
}

/// Writes arrays and their description, whole or not at all.
pub(crate) fn write<T: Serialize>(path: &Path, content: Content, about: &T, arrays: &[Array]) -> Result<(), OpError> {
    let text = serde_json::to_string(&Description { content, about })
        .map_err(|error| OpError::unfit(format!("cannot describe {}: {error}", path.display()), "this is a bug"))?;
    let packed: Vec<(Dtype, Vec<u8>)> = arrays
        .iter()
        .map(|array| match &array.values {
            Values::F32(values) => (Dtype::F32, values.iter().flat_map(|value| value.to_le_bytes()).collect()),
            Values::I64(values) => (Dtype::I64, values.iter().flat_map(|value| value.to_le_bytes()).collect()),
        })
        .collect();
    let views = arrays.iter().zip(&packed).map(|(array, (kind, bytes))| {
        TensorView::new(*kind, array.shape.clone(), bytes).map(|view| (array.name.as_str(), view))
    });
    let bytes = views
        .collect::<Result<Vec<_>, _>>()
        .and_then(|views| safetensors::serialize(views, Some(HashMap::from([(KEY.to_owned(), text)]))))
        .map_err(|error| OpError::unfit(format!("cannot pack {}: {error}", path.display()), "this is a bug"))?;
    file::write(path, &bytes)
}

/// Reads what [`write`] wrote; refuses any other file, and other contents than expected.
pub(crate) fn read<T: DeserializeOwned>(path: &Path, expected: Content) -> Result<Archive<T>, OpError> {
    let bytes = file::read(path)?;
    let not_ours = |why: String| {
        let help = format!("expected {} that a built-in stage wrote: check the order of `inputs`", expected.words());
        OpError::input(Place::file(path), why, help)
    };
    let (_, header) =
        SafeTensors::read_metadata(&bytes).map_err(|error| not_ours(format!("cannot be read: {error}")))?;
    let text = header.metadata().as_ref().and_then(|metadata| metadata.get(KEY));
    let text = text.ok_or_else(|| not_ours("no description in it".to_owned()))?;
    let found: Description<serde_json::Value> =
        serde_json::from_str(text).map_err(|error| not_ours(format!("its description is damaged: {error}")))?;
    if found.content != expected {
        return Err(not_ours(format!("this is {}", found.content.words())));
    }
    let about = serde_json::from_value(found.about).map_err(|error| {
        let what = format!("{} of another version: {error}", expected.words());
        OpError::input(Place::file(path), what, "make it anew")
    })?;
    let tensors = SafeTensors::deserialize(&bytes).map_err(|error| not_ours(format!("cannot be read: {error}")))?;
    let mut arrays = HashMap::new();
    for (name, view) in tensors.iter() {
        let values = if view.dtype() == Dtype::F32 {
            Values::F32(chunks(view.data()).map(f32::from_le_bytes).collect())
        } else if view.dtype() == Dtype::I64 {
            Values::I64(chunks(view.data()).map(i64::from_le_bytes).collect())
        } else {
            return Err(not_ours(format!("`{name}` holds {:?}", view.dtype())));
        };
        arrays.insert(name.to_owned(), Array { name: name.to_owned(), shape: view.shape().to_vec(), values });
    }
    Ok(Archive { about, arrays, path: path.to_owned() })
}

fn chunks<const N: usize>(bytes: &[u8]) -> impl Iterator<Item = [u8; N]> {
    bytes.as_chunks::<N>().0.iter().copied()
}

impl<T> Archive<T> {
    /// Takes an array out, if it is there.
    pub(crate) fn take(&mut self, name: &str) -> Option<Array> {
        self.arrays.remove(name)
    }

    /// Takes an array of numbers with a fraction out.
    pub(crate) fn take_f32(&mut self, name: &str) -> Result<(Vec<usize>, Vec<f32>), OpError> {
        match self.take(name) {
            Some(Array { shape, values: Values::F32(values), .. }) => Ok((shape, values)),
            Some(Array { values: Values::I64(_), .. }) | None => Err(OpError::input(
                Place::file(&self.path),
                format!("no array `{name}` of 32-bit floats in it"),
                "make the file anew",
            )),
        }
    }
}
