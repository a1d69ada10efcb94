//! The documentation's table of values: names and comments from the types,
//! defaults from `values.yaml`.

use serde_json::Value;

use super::values::Values;

const HEAD: &str = "\
# Values of the chart

What `--set` and `-f` take. Generated from the types that `values.yaml` is read by; a name that is not here, or a value that does not fit, is refused by `helm install` and `helm lint`, which say where.

`helm show values helm/weir` prints the same with comments.
";

/// The whole page.
///
/// # Errors
/// `values` is not what the types expect; says where.
pub fn page(schema: &Value, values: &Value) -> Result<String, String> {
    let _: Values =
        serde_json::from_value(values.clone()).map_err(|e| format!("values.yaml: {e}"))?;
    let mut page = HEAD.to_owned();
    let mut top = Vec::new();
    let mut sections = Vec::new();
    for (name, value) in values.as_object().into_iter().flatten() {
        let mut rows = Vec::new();
        let field = &schema["properties"][name];
        collect(name, field, value, schema, &mut rows);
        let about = description(field, schema);
        if rows.len() == 1 { top.append(&mut rows) } else { sections.push((name, about, rows)) }
    }
    page.push_str(&table(&top));
    for (name, about, rows) in sections {
        page.push_str(&format!("\n## {name}\n\n{about}\n"));
        page.push_str(&table(&rows));
    }
    Ok(page)
}

struct Row {
    name: String,
    default: String,
    about: String,
}

fn table(rows: &[Row]) -> String {
    let mut out = "\n| value | default | |\n| --- | --- | --- |\n".to_owned();
    for Row { name, default, about } in rows {
        let about = about.replace('|', "\\|");
        out.push_str(&format!("| `{name}` | {default} | {about} |\n"));
    }
    out
}

fn collect(name: &str, field: &Value, value: &Value, root: &Value, rows: &mut Vec<Row>) {
    let known = resolve(field, root)["properties"].as_object();
    match (known, value.as_object()) {
        (Some(known), Some(values)) => {
            for (key, value) in values {
                collect(&format!("{name}.{key}"), &known[key], value, root, rows);
            }
        }
        _ => rows.push(Row {
            name: name.to_owned(),
            default: match value {
                Value::String(text) if text.is_empty() => "".to_owned(),
                Value::String(text) => format!("`{text}`"),
                other => format!("`{other}`"),
            },
            about: format!("{}{}", description(field, root), words(field, root)),
        }),
    }
}

fn resolve<'a>(field: &'a Value, root: &'a Value) -> &'a Value {
    match field["$ref"].as_str() {
        Some(reference) => &root["$defs"][reference.rsplit('/').next().unwrap_or_default()],
        None => field,
    }
}

fn description(field: &Value, root: &Value) -> String {
    let own = field["description"].as_str();
    let text = own.or_else(|| resolve(field, root)["description"].as_str()).unwrap_or_default();
    text.replace('\n', " ")
}

/// The words that are possible, if those are few.
fn words(field: &Value, root: &Value) -> String {
    let field = resolve(field, root);
    let of = |choice: &Value| match choice["enum"].as_array() {
        Some(words) => words.clone(),
        None => choice.get("const").cloned().into_iter().collect(),
    };
    let choices = field["oneOf"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut words: Vec<Value> = choices.iter().flat_map(of).collect();
    words.extend(of(field));
    words.retain(|word| word != "");
    if words.is_empty() {
        return String::new();
    }
    let words: Vec<_> = words.iter().filter_map(|w| w.as_str()).map(|w| format!("`{w}`")).collect();
    format!(" {}.", words.join(", "))
}
