//! Reading all pages of a list.

use serde_json::{Map, Value};

/// Returns the entries of all pages. `ask` receives the question with the cursor of the previous page.
pub(super) async fn read_all(
    mut question: Map<String, Value>,
    ask: impl AsyncFn(Map<String, Value>) -> anyhow::Result<Value>,
) -> anyhow::Result<Vec<Value>> {
    let mut found = Vec::new();
    loop {
        let mut page = ask(question.clone()).await?;
        if let Some(Value::Array(results)) = page.get_mut("results").map(Value::take) {
            found.extend(results);
        }
        match page.get_mut("next_cursor").map(Value::take) {
            Some(next) => drop(question.insert("cursor".to_owned(), next)),
            None => return Ok(found),
        }
    }
}
