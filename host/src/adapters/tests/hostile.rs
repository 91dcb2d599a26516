//! Adapters are untrusted: whatever is in the files, an error names the place.

use proptest::prelude::*;

use super::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn damaged_files_are_refused_by_name(
        config in any::<bool>(),
        at in any::<prop::sample::Index>(),
        what in prop::collection::vec(any::<u8>(), 0..12),
        cut in any::<bool>(),
    ) {
        let parent = tempfile::tempdir().unwrap();
        let dir = copy("r3", parent.path(), "a");
        let path = dir.join(if config { directory::CONFIG } else { directory::WEIGHTS });
        let mut bytes = fs::read(&path).unwrap();
        let at = at.index(bytes.len().min(1500));
        if cut {
            bytes.truncate(at);
        }
        let end = bytes.len().min(at + what.len());
        bytes.splice(at..end, what);
        fs::write(&path, bytes).unwrap();
        if let Err(error) = read(&dir) {
            prop_assert!(error.contains(&dir.display().to_string()), "no place in {error:?}");
        }
    }

    #[test]
    fn any_setting_is_read_or_refused(key in 0usize..40, value in 0usize..12) {
        let parent = tempfile::tempdir().unwrap();
        let dir = copy("patterns", parent.path(), "a");
        let text = fs::read_to_string(dir.join(directory::CONFIG)).unwrap();
        let keys: serde_json::Map<String, Value> = serde_json::from_str(&text).unwrap();
        let key = keys.keys().nth(key % keys.len()).unwrap();
        let values = [
            json!(null), json!(0), json!(-1), json!(1e300), json!(u64::MAX), json!(""),
            json!("(a+)+$"), json!([]), json!([[[]]]), json!({}), json!({"(": 1}), json!(true),
        ];
        configure(&dir, key, values[value].clone());
        if let Err(error) = read(&dir) {
            prop_assert!(error.contains(&dir.display().to_string()), "no place in {error:?}");
        }
    }
}
