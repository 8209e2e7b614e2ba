//! Between host memory and libtorch: arrays of an archive and tables of a data set as tensors, and back.
//!
//! Every call is a fallible one: an out-of-memory comes back as an error that keeps libtorch's text.

use tch::{Device, Kind, TchError, Tensor};

use crate::archive::{Array, Values};
use crate::dataset::Dataset;

/// Returns the features as a tensor f32 `[rows, features]`.
pub(crate) fn features(set: &Dataset, device: Device) -> Result<Tensor, TchError> {
    from_values(&[set.rows(), set.features], &set.x, device)
}

/// Returns classes as a tensor i64 `[rows]`.
pub(crate) fn classes(y: &[i64], device: Device) -> Result<Tensor, TchError> {
    Tensor::f_from_slice(y)?.f_to_device(device)
}

/// Copies numbers to a device.
pub(crate) fn from_values(shape: &[usize], values: &[f32], device: Device) -> Result<Tensor, TchError> {
    let shape: Vec<i64> = shape.iter().map(|length| i64::try_from(*length).unwrap_or(i64::MAX)).collect();
    Tensor::f_from_slice(values)?.f_view(&shape[..])?.f_to_device(device)
}

/// Copies a tensor of 32-bit floats to host memory.
pub(crate) fn to_array(name: String, tensor: &Tensor) -> Result<Array, TchError> {
    let shape = tensor.size().into_iter().map(|length| usize::try_from(length).unwrap_or(0)).collect();
    Ok(Array { name, shape, values: Values::F32(to_vec(tensor)?) })
}

/// Copies a tensor of 32-bit floats to host memory, row-major.
pub(crate) fn to_vec(tensor: &Tensor) -> Result<Vec<f32>, TchError> {
    let flat = tensor.f_detach()?.f_to_device(Device::Cpu)?.f_to_kind(Kind::Float)?.f_contiguous()?.f_view(-1)?;
    Vec::try_from(flat)
}

/// Copies each tensor, so that changes to the one do not reach the other.
pub(crate) fn copies(tensors: &[Tensor]) -> Result<Vec<Tensor>, TchError> {
    let copy = |tensor: &Tensor| {
        let source = tensor.f_detach()?;
        let mut copy = source.f_zeros_like()?;
        copy.f_copy_(&source)?;
        Ok(copy)
    };
    tensors.iter().map(copy).collect()
}
