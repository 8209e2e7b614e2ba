//! `trainyard schema`: a JSON Schema of the pipeline file or the fleet file, for completion and checks in editors.
//!
//! Made from the tables that the decoder reads by, and from the catalogue of built-in ops: nothing is written twice.

use clap::Args;
use schemars::{Schema, json_schema};
use serde_json::{Map, Value as Json, json};

use super::{Exit, Failure, output};
use crate::fleet;
use crate::spec::decode::{Field, Form, Key};
use crate::spec::keys::{StageKey, TopKey};
use crate::spec::op::{self, Kind, Op, Param};

/// Print a JSON Schema of the pipeline file, for editors
#[derive(Args)]
pub(super) struct Command {
    /// Print that of the fleet file instead
    #[arg(long)]
    fleet: bool,
}

impl Command {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        let schema = if self.fleet { fleet_file() } else { pipeline_file(op::CATALOGUE) };
        output::print(&format!("{:#}\n", schema.as_value()))
    }
}

/// The dialect that every schema here is written in: the newest one that editors' TOML plug-ins know.
const DIALECT: &str = "http://json-schema.org/draft-07/schema#";

/// Text of a parameter that a point of the matrix fills in.
const TEMPLATE: &str = r"\{matrix\.";
const NAME: &str = "^[A-Za-z0-9_.-]+$";
const SIZE: &str = r"^\s*[0-9]+(\.[0-9]+)?\s*(B|kB|KB|MB|GB|TB|KiB|MiB|GiB|TiB)\s*$";
const TIME: &str = r"^\s*([0-9]+(\.[0-9]+)?\s*(ms|s|m|h|d)\s*)+$";
const RATE: &str = r"^\s*[0-9]+(\.[0-9]+)?\s*(B|kB|KB|MB|GB|TB|KiB|MiB|GiB|TiB)/s\s*$";

/// Returns the schema of a pipeline file whose `use` may name one of these ops.
fn pipeline_file(catalogue: &[Op]) -> Schema {
    let mut schema = table(&[TopKey::FIELDS], None);
    let stage = json!({
        "$comment": "a stage has a command or a built-in op, not both",
        "oneOf": [{ "required": [StageKey::Run.word()] }, { "required": [StageKey::Use.word()] }],
        "allOf": catalogue.iter().map(with_of).collect::<Vec<_>>(),
    });
    if let Some(stages) = schema.pointer_mut("/properties/stage") {
        stages["minProperties"] = json!(1);
        stages["propertyNames"] = json!({ "pattern": NAME });
        if let (Some(known), Json::Object(stage)) = (stages["additionalProperties"].as_object_mut(), stage) {
            known.extend(stage);
        }
        let words = catalogue.iter().map(|op| json!({ "const": op.name, "description": op.about }));
        let name = json!({ "type": "string", "anyOf": words.collect::<Vec<_>>() });
        let about = stages["additionalProperties"]["properties"]["use"]["description"].take();
        stages["additionalProperties"]["properties"]["use"] = name;
        stages["additionalProperties"]["properties"]["use"]["description"] = about;
    }
    schema.insert("$schema".to_owned(), json!(DIALECT));
    schema.insert("title".to_owned(), json!("Trainyard pipeline"));
    schema.insert("required".to_owned(), json!([TopKey::Stage.word()]));
    schema
}

/// Returns the schema of a fleet file.
fn fleet_file() -> Schema {
    let mut schema = form(&fleet::keys::FORM);
    schema.insert("$schema".to_owned(), json!(DIALECT));
    schema.insert("title".to_owned(), json!("Trainyard fleet"));
    schema.insert("required".to_owned(), json!([fleet::keys::TopKey::Node.word()]));
    for (entry, required) in [
        ("/properties/node/items", vec![fleet::keys::NodeKey::Name.word()]),
        ("/properties/node/items/properties/gpu/items", vec![fleet::keys::GpuKey::Memory.word()]),
        ("/properties/link/items", vec![fleet::keys::LinkKey::Between.word(), fleet::keys::LinkKey::Bandwidth.word()]),
    ] {
        if let Some(table) = schema.pointer_mut(entry) {
            table["required"] = json!(required);
        }
    }
    schema
}

/// Returns the rule for `with` beside one op.
fn with_of(op: &Op) -> Json {
    let properties: Map<_, _> = op.params.iter().map(|param| (param.name.to_owned(), parameter(param))).collect();
    let required: Vec<_> =
        op.params.iter().filter(|param| param.default == op::Default::Required).map(|param| param.name).collect();
    let with = json!({ "properties": properties, "required": required, "additionalProperties": false });
    let stage = match required.is_empty() {
        true => json!({ "properties": { "with": with } }),
        false => json!({ "properties": { "with": with }, "required": ["with"] }),
    };
    json!({ "if": { "properties": { "use": { "const": op.name } }, "required": ["use"] }, "then": stage })
}

fn parameter(param: &Param) -> Json {
    let kind = match param.kind {
        Kind::Bool => json!({ "type": "boolean" }),
        Kind::Int { least, most } => whole(least, most),
        Kind::Float { least, most, above: true } => {
            json!({ "type": "number", "exclusiveMinimum": least, "maximum": most })
        }
        Kind::Float { least, most, above: false } => json!({ "type": "number", "minimum": least, "maximum": most }),
        Kind::Text => json!({ "type": "string" }),
        Kind::Choice(words) => json!({ "enum": words }),
        Kind::Ints { least, most, len } => {
            json!({ "type": "array", "items": whole(least, most), "maxItems": len })
        }
    };
    let template = json!({ "type": "string", "pattern": TEMPLATE });
    let mut schema = json!({ "description": param.about, "anyOf": [kind, template] });
    if let Some(default) = param.default.to_json() {
        schema["default"] = default;
    }
    schema
}

fn whole(least: i64, most: i64) -> Json {
    json!({ "type": "integer", "minimum": least, "maximum": most })
}

/// Returns the schema of a table with these keys.
fn table(fields: &[&[Field]], rest: Option<&Form>) -> Schema {
    let property = |field: &Field| {
        let mut schema = form(&field.form);
        schema.insert("description".to_owned(), json!(field.about));
        (field.word.to_owned(), schema.to_value())
    };
    let properties: Map<_, _> = fields.iter().flat_map(|fields| fields.iter()).map(property).collect();
    let rest = rest.map_or(json!(false), |rest| form(rest).to_value());
    json_schema!({ "type": "object", "properties": properties, "additionalProperties": rest })
}

fn text(pattern: &str) -> Schema {
    json_schema!({ "type": "string", "pattern": pattern })
}

/// Returns the schema of a value.
fn form(value: &Form) -> Schema {
    match value {
        Form::Text => json_schema!({ "type": "string" }),
        Form::Name => text(NAME),
        Form::Like(pattern) => text(pattern),
        Form::Words(words) => json_schema!({ "enum": words }),
        Form::Size => text(SIZE),
        Form::Time => text(TIME),
        Form::Rate => text(RATE),
        Form::Bool => json_schema!({ "type": "boolean" }),
        Form::Whole(bounds) => {
            json_schema!({ "type": "integer", "minimum": bounds.start(), "maximum": bounds.end() })
        }
        Form::Number(bounds) => {
            json_schema!({ "type": "number", "minimum": bounds.start(), "maximum": bounds.end() })
        }
        Form::Scalar => json_schema!({ "type": ["string", "number", "boolean"] }),
        Form::Value => json_schema!({ "type": ["string", "number", "boolean", "array"] }),
        Form::OneOf(forms) => {
            json_schema!({ "anyOf": forms.iter().map(|value| form(value).to_value()).collect::<Vec<_>>() })
        }
        Form::List(entry) => json_schema!({ "type": "array", "items": form(entry).to_value() }),
        Form::Map(entry) => json_schema!({ "type": "object", "additionalProperties": form(entry).to_value() }),
        Form::Table(fields, rest) => table(&[fields], *rest),
        Form::Joined(fields) => table(fields, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_fleet_file_cannot_do_without_is_required() {
        let schema = fleet_file();
        let required = |pointer: &str| schema.pointer(pointer).map(|table| table["required"].clone());
        assert_eq!(schema.get("required"), Some(&json!(["node"])));
        assert_eq!(required("/properties/node/items"), Some(json!(["name"])));
        assert_eq!(required("/properties/node/items/properties/gpu/items"), Some(json!(["memory"])));
        assert_eq!(required("/properties/link/items"), Some(json!(["between", "bandwidth"])));
    }
}
