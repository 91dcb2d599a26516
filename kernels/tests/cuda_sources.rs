//! Every `.cu` file compiles for every architecture that we name, on machines without a GPU too.

#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

use std::sync::Mutex;

use switchyard_kernels::{
    BlobCache, DeviceError,
    cuda::{SOURCES, compiler::compile},
};

const ARCHITECTURES: [&str; 4] = ["sm_80", "sm_90a", "sm_100a", "sm_120"];

/// Keeps what it is given, so that the test sees what would be cached.
#[derive(Default)]
struct Memory(Mutex<Vec<(String, Vec<u8>)>>);

impl BlobCache for Memory {
    fn get(&self, key: &str) -> Option<Vec<u8>> {
        let kept = self.0.lock().unwrap();
        kept.iter().find(|(name, _)| name == key).map(|(_, blob)| blob.clone())
    }

    fn put(&self, key: &str, blob: &[u8]) {
        self.0.lock().unwrap().push((key.to_owned(), blob.to_vec()));
    }
}

#[test]
fn every_source_compiles_for_every_architecture() {
    let cache = Memory::default();
    for source in SOURCES {
        for arch in ARCHITECTURES {
            match compile(*source, arch, &cache) {
                Ok(cubin) => assert_eq!(&cubin[1..4], b"ELF", "{} for {arch}", source.name),
                Err(DeviceError::Unavailable(why)) if why.starts_with("NVRTC,") => {
                    return println!("skipped: {why}");
                }
                Err(error) => panic!("{arch}: {error}"),
            }
        }
    }
    let kept = cache.0.lock().unwrap().len();
    assert_eq!(kept, SOURCES.len() * ARCHITECTURES.len(), "each has a key of its own");
    let again = compile(SOURCES[0], ARCHITECTURES[0], &cache).unwrap();
    assert_eq!(Some(again), cache.0.lock().unwrap().first().map(|(_, blob)| blob.clone()));
}
