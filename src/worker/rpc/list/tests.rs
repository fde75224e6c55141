use proptest::prelude::*;

use super::*;

fn page(limit: Option<usize>, cursor: Option<String>) -> Page {
    Page { limit, cursor, integration_id: None, tokens: None }
}

/// Reads all pages. Returns their entries and the number of pages.
fn all(keys: &[String], limit: usize) -> (Vec<Value>, usize) {
    let (mut found, mut cursor, mut pages) = (Vec::new(), None, 0);
    loop {
        let body = one(keys, &page(Some(limit), cursor)).unwrap();
        pages += 1;
        found.extend(body["results"].as_array().unwrap().iter().cloned());
        assert_eq!(body["results_total"], keys.len());
        match body["next_cursor"].as_str() {
            Some(next) => cursor = Some(next.to_owned()),
            None => return (found, pages),
        }
    }
}

fn one(keys: &[String], page: &Page) -> Result<Value, u16> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let answer = runtime.block_on(page_of(page, keys, PAGE_BYTES, |key| async move { Ok(Some(Value::from(key))) }));
    answer.map_err(|error| match error {
        CallError::Refused(failure, _) => failure.status(),
        CallError::Store(_) | CallError::Answered(_) => 502,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_cursor_panics_and_none_leads_outside(cursor in prop_oneof![".{0,40}", "[A-Za-z0-9_-]{0,40}"], limit in 0_usize..3_000) {
        let keys: Vec<String> = ('a'..='e').map(String::from).collect();
        let is_limit = (1..=MAX_LIMIT).contains(&limit);
        match one(&keys, &page(Some(limit), Some(cursor.clone()))) {
            Ok(body) => {
                prop_assert!(is_limit && read_cursor(&cursor).is_ok());
                let results = body["results"].as_array().unwrap();
                prop_assert!(results.iter().all(|key| keys.iter().any(|known| key == known)));
            }
            Err(status) => prop_assert!(status == 400 && !(is_limit && read_cursor(&cursor).is_ok())),
        }
    }

    #[test]
    fn pages_hold_each_entry_once(number in 0_usize..40, limit in 1_usize..15) {
        let keys: Vec<String> = (0..number).map(|number| format!("{number:03}")).collect();
        let (found, pages) = all(&keys, limit);
        prop_assert_eq!(&found, &keys.iter().map(|key| Value::from(key.as_str())).collect::<Vec<_>>());
        prop_assert_eq!(pages, number.div_ceil(limit).max(1));
    }
}
