//! The API server's own table of experiments: of each the columns that its definition prints, a fraction of the whole.

use kube::Client;
use kube::api::{Api, DynamicObject, ListParams};
use kube::core::Request;
use serde::Deserialize;
use serde_json::Value;
use std::sync::Arc;

use crate::error::{Error, Result};

const WHAT: &str = "experiments cannot be listed";
const AS_TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io";

/// An object in a table.
#[derive(Debug, Clone)]
pub struct Row {
    pub namespace: String,
    columns: Arc<[String]>,
    cells: Vec<Value>,
}

impl Row {
    /// What stands in a column; nothing where there is nothing.
    pub fn text(&self, column: &str) -> &str {
        let index = self.columns.iter().position(|name| name == column);
        index.and_then(|index| self.cells.get(index)?.as_str()).unwrap_or_default()
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Table {
    column_definitions: Vec<Column>,
    // Null where there is nothing.
    rows: Option<Vec<Line>>,
}

#[derive(Deserialize)]
struct Column {
    name: String,
}

#[derive(Deserialize)]
struct Line {
    cells: Vec<Value>,
    object: Option<Object>,
}

#[derive(Deserialize)]
struct Object {
    metadata: Meta,
}

#[derive(Deserialize)]
struct Meta {
    #[serde(default)]
    namespace: String,
}

/// Every experiment that an `Api` reaches, with at least the columns that are needed; in `namespace`, or in all. Namespaces cost
/// much more than columns, since they come with all other metadata.
pub async fn rows(
    client: &Client,
    api: &Api<DynamicObject>,
    labels: Option<&str>,
    namespace: Option<&str>,
    needed: &[&str],
) -> Result<Vec<Row>> {
    let table: Table = client.request(request(api, labels, namespace.is_none())?).await.map_err(failed)?;
    let columns: Arc<[String]> = table.column_definitions.into_iter().map(|column| column.name).collect();
    if let Some(missing) = needed.iter().find(|name| !columns.iter().any(|column| column == **name)) {
        let hint = "the cluster's definitions are older than this program: apply those of its version";
        return Err(Error::new(WHAT).why(format!("they have no column {missing}")).hint(hint));
    }
    let row = |line: Line| Row {
        namespace: match (namespace, line.object) {
            (Some(namespace), _) => namespace.to_owned(),
            (None, object) => object.map(|object| object.metadata.namespace).unwrap_or_default(),
        },
        columns: Arc::clone(&columns),
        cells: line.cells,
    };
    Ok(table.rows.unwrap_or_default().into_iter().map(row).collect())
}

fn request(api: &Api<DynamicObject>, labels: Option<&str>, with_metadata: bool) -> Result<http::Request<Vec<u8>>> {
    let params = ListParams { label_selector: labels.map(str::to_owned), ..ListParams::default() };
    let request = Request::new(api.resource_url()).list(&params);
    let mut request = request.map_err(|error| failed(kube::Error::BuildRequest(error)))?;
    let separator = if request.uri().query().is_some_and(|query| !query.is_empty()) { "&" } else { "" };
    let object = if with_metadata { "Metadata" } else { "None" };
    let uri = format!("{}{separator}includeObject={object}", request.uri());
    *request.uri_mut() = uri.parse().map_err(|error| Error::new(WHAT).why(error))?;
    request.headers_mut().insert("accept", http::HeaderValue::from_static(AS_TABLE));
    Ok(request)
}

fn failed(error: kube::Error) -> Error {
    Error::of_server(WHAT, error)
}
