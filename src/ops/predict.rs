//! `torch.predict`: the class of every row, as CSV.

use std::path::Path;

use ::csv::Writer;
use tch::Kind;

use crate::dataset::Dataset;
use crate::error::OpError;
use crate::file;
use crate::model::Model;
use crate::params::Predict;
use crate::surroundings::Surroundings;
use crate::tensor;

/// Predicts every row and writes `row`, `predicted`, `actual` where it is known, and if asked a column `p_<class>` for
/// each class.
pub(crate) fn run(
    params: &Predict,
    model: &Path,
    data: &Path,
    output: &Path,
    around: &Surroundings,
) -> Result<(), OpError> {
    let device = around.device();
    let model = Model::read(model, device)?;
    let set = Dataset::read(data)?;
    set.check_features(model.architecture.features, "the model", data)?;
    let scores = model.log_probabilities(&set, params.batch_size, device)?;
    let predicted: Vec<i64> = Vec::try_from(scores.f_argmax(-1, false)?)?;
    let probabilities = tensor::to_vec(&scores.f_to_kind(Kind::Double)?.f_exp()?)?;

    let mut header = vec!["row".to_owned(), "predicted".to_owned()];
    header.extend(set.y.is_some().then(|| "actual".to_owned()));
    if params.probabilities {
        header.extend(model.classes.iter().map(|class| format!("p_{class}")));
    }
    let name = |names: &[String], class: i64| names[usize::try_from(class).unwrap_or(usize::MAX)].clone();
    let rows = predicted.iter().zip(probabilities.chunks_exact(model.classes.len())).enumerate();
    let records = rows.map(|(row, (class, probabilities))| {
        let mut record = vec![(row + 1).to_string(), name(&model.classes, *class)];
        record.extend(set.y.as_ref().map(|y| name(&set.classes, y[row])));
        if params.probabilities {
            record.extend(probabilities.iter().map(ToString::to_string));
        }
        record
    });
    let mut writer = Writer::from_writer(Vec::new());
    let text = std::iter::once(header).chain(records).try_for_each(|record| writer.write_record(record));
    let bytes =
        text.map_err(std::io::Error::from).and_then(|()| writer.into_inner().map_err(|error| error.into_error()));
    file::write(output, &bytes.map_err(OpError::io("write", output))?)?;
    println!("{} rows predicted", predicted.len());
    Ok(())
}
