//! Every `.cu` file compiles for every architecture that we name, on machines without a GPU too.
//!
//! Skipped where NVRTC is not, unless `SWITCHYARD_TEST_NVRTC` is set: then its absence is a
//! failure.

#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

use std::sync::Mutex;

use switchyard_kernels::{
    BlobCache, DeviceError,
    cuda::{
        compiler::{Source, compile},
        sources,
    },
};

const ARCHITECTURES: [&str; 4] = ["sm_80", "sm_90a", "sm_100a", "sm_120"];
/// When this is set, a missing NVRTC is a failure.
const REQUIRED: &str = "SWITCHYARD_TEST_NVRTC";

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

/// Every source for one architecture; false if there is no NVRTC.
fn compile_all(arch: &str, cache: &Memory) -> bool {
    for source in sources() {
        match compile(source, arch, cache) {
            Ok(cubin) => assert_eq!(&cubin[1..4], b"ELF", "{} for {arch}", source.name),
            Err(DeviceError::Unavailable(why)) => {
                assert!(std::env::var_os(REQUIRED).is_none(), "{why}");
                println!("skipped: {why}");
                return false;
            }
            Err(error) => panic!("{arch}: {error}"),
        }
    }
    true
}

#[test]
fn every_source_compiles_for_every_architecture() {
    let cache = &Memory::default();
    let compiled = std::thread::scope(|scope| {
        let threads = ARCHITECTURES.map(|arch| scope.spawn(move || compile_all(arch, cache)));
        threads.map(|thread| thread.join().unwrap())
    });
    if compiled == [false; 4] {
        return;
    }
    let kept = cache.0.lock().unwrap().len();
    assert_eq!(kept, sources().len() * ARCHITECTURES.len(), "each has a key of its own");
    let first = cache.0.lock().unwrap()[0].clone();
    let arch =
        ARCHITECTURES.into_iter().find(|arch| first.0.starts_with(&format!("cubin {arch} ")));
    let names = |source: &Source| first.0.contains(&format!(" {}\n", source.name));
    let source = sources().into_iter().find(names).unwrap();
    assert_eq!(compile(source, arch.unwrap(), cache).unwrap(), first.1, "found in the cache");
}
