//! CUDA C++ to machine code for one architecture, by NVRTC.

use std::ffi::{CStr, CString, c_char};

use cudarc::nvrtc::{result, sys};

use crate::{BlobCache, DeviceError};

/// One `.cu` file, or one of the modules that it comes as.
#[derive(Clone, Copy)]
pub struct Source {
    /// Its name, that of the file without the ending.
    pub name: &'static str,
    /// Its text.
    pub text: &'static str,
}

/// What the sources include, by file name.
const HEADERS: [(&CStr, &str); 17] = [
    (c"prelude.cuh", include_str!("prelude.cuh")),
    (c"attention.cuh", include_str!("attention.cuh")),
    (c"attention_page.cuh", include_str!("attention_page.cuh")),
    (c"expand.cuh", include_str!("expand.cuh")),
    (c"fixed.cuh", include_str!("fixed.cuh")),
    (c"hopper.cuh", include_str!("hopper.cuh")),
    (c"lookup.cuh", include_str!("lookup.cuh")),
    (c"low_rank.cuh", include_str!("low_rank.cuh")),
    (c"low_rank_add.cuh", include_str!("low_rank_add.cuh")),
    (c"low_rank_list.cuh", include_str!("low_rank_list.cuh")),
    (c"low_rank_shrink.cuh", include_str!("low_rank_shrink.cuh")),
    (c"low_rank_simple.cuh", include_str!("low_rank_simple.cuh")),
    (c"matmul_decode.cuh", include_str!("matmul_decode.cuh")),
    (c"norm.cuh", include_str!("norm.cuh")),
    (c"product.cuh", include_str!("product.cuh")),
    (c"rotary.cuh", include_str!("rotary.cuh")),
    (c"shrink_tensor.cuh", include_str!("shrink_tensor.cuh")),
];

/// Whether the compiler is there; an error says how to install it.
pub(super) fn find() -> Result<(), DeviceError> {
    // SAFETY: looks a library up by name.
    if unsafe { sys::is_culib_present() } {
        return Ok(());
    }
    Err(DeviceError::Unavailable(
        "NVRTC, the run-time compiler of CUDA, was not found (libnvrtc.so): `apt-get install \
         cuda-libraries-13-0` from NVIDIA's repository installs it; so does `pip install \
         nvidia-cuda-nvrtc` with its `lib` folder on LD_LIBRARY_PATH"
            .to_owned(),
    ))
}

/// Compiles a source for an architecture such as "sm_90a", or finds it in the cache.
pub fn compile(source: Source, arch: &str, cache: &dyn BlobCache) -> Result<Vec<u8>, DeviceError> {
    find()?;
    let key = key(source, arch);
    if let Some(cubin) = cache.get(&key) {
        return Ok(cubin);
    }
    let cubin = Program::new(source)?.compile(arch)?;
    cache.put(&key, &cubin);
    Ok(cubin)
}

/// Everything the machine code depends on.
fn key(source: Source, arch: &str) -> String {
    let (mut major, mut minor) = (0, 0);
    // SAFETY: both places are writable.
    let _ = unsafe { sys::nvrtcVersion(&mut major, &mut minor) };
    let headers: String = HEADERS.iter().map(|(_, text)| *text).collect();
    format!("cubin {arch} nvrtc {major}.{minor} {}\n{headers}\n{}", source.name, source.text)
}

/// A program inside NVRTC.
struct Program {
    source: Source,
    handle: sys::nvrtcProgram,
}

impl Program {
    fn new(source: Source) -> Result<Self, DeviceError> {
        let c_string = |text: &str| CString::new(text).expect("sources have no zero byte");
        let (text, name) = (c_string(source.text), c_string(&format!("{}.cu", source.name)));
        let headers = HEADERS.map(|(_, text)| c_string(text));
        let header_texts: Vec<*const c_char> = headers.iter().map(|text| text.as_ptr()).collect();
        let header_names = HEADERS.map(|(name, _)| name.as_ptr());
        let mut handle = std::ptr::null_mut();
        // SAFETY: all strings live until the call returns; NVRTC copies them.
        let made = unsafe {
            sys::nvrtcCreateProgram(
                &mut handle,
                text.as_ptr(),
                name.as_ptr(),
                HEADERS.len() as i32,
                header_texts.as_ptr(),
                header_names.as_ptr(),
            )
        };
        made.result().map_err(|error| failed(source, &error.to_string()))?;
        Ok(Self { source, handle })
    }

    fn compile(&self, arch: &str) -> Result<Vec<u8>, DeviceError> {
        let options = [
            format!("--gpu-architecture={arch}"),
            "--std=c++17".to_owned(),
            "--device-as-default-execution-space".to_owned(),
            "--extra-device-vectorization".to_owned(),
        ];
        // SAFETY: the handle is a live program.
        let compiled = unsafe { result::compile_program(self.handle, &options) };
        compiled.map_err(|_| failed(self.source, &self.log()))?;
        let mut size = 0;
        // SAFETY: the handle is a live, compiled program; the buffer has the size it asked for.
        unsafe {
            let mut got = sys::nvrtcGetCUBINSize(self.handle, &mut size).result();
            let mut cubin = vec![0_u8; size];
            got = got
                .and_then(|()| sys::nvrtcGetCUBIN(self.handle, cubin.as_mut_ptr().cast()).result());
            got.map_err(|error| failed(self.source, &error.to_string()))?;
            Ok(cubin)
        }
    }

    fn log(&self) -> String {
        // SAFETY: the handle is a live program.
        let log = unsafe { result::get_program_log(self.handle) }.unwrap_or_default();
        let bytes: Vec<u8> = log.into_iter().map(|c| c as u8).filter(|&byte| byte != 0).collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // SAFETY: the handle is a live program and not used again.
        let _ = unsafe { result::destroy_program(self.handle) };
    }
}

fn failed(source: Source, why: &str) -> DeviceError {
    DeviceError::Kernel(format!("compiling {} failed:\n{why}", source.name))
}
