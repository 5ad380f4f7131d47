//! Any JSON value, for property tests.

use proptest::prelude::*;
use serde_json::Value;

/// Makes values whose objects have names of this kind.
pub(crate) fn values(name: impl Strategy<Value = String> + Clone + 'static) -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[\\PC\"\\\\\n,:{}]{0,6}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((name.clone(), inner), 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

/// Makes short names, some of which must be escaped.
pub(crate) fn short_names() -> impl Strategy<Value = String> + Clone {
    "[abc\"\\\\é]{0,2}"
}

/// Writes a value as text, on one line or on several.
pub(crate) fn written(value: &Value, pretty: bool) -> String {
    if pretty { format!("{value:#}") } else { value.to_string() }
}
