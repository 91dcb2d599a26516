//! Which instructions the kernels may use.

use std::{fmt, str::FromStr};

/// A path through the kernels. All give results within rounding of each other; each gives the
/// same bits for a row whatever the batch and the number of threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Isa {
    /// Matrix products on the AMX tile unit, the rest as [`Self::Avx512Bf16`].
    AmxBf16,
    /// AVX-512 with its bf16 dot product; other element types as [`Self::Avx512`].
    Avx512Bf16,
    /// AVX-512 (F, BW, DQ, VL), products in f32.
    Avx512,
    /// AVX2 with FMA and F16C.
    Avx2,
    /// What any processor can do, left to the compiler.
    Portable,
    /// Plain loops in f64: the oracle of the parity tests.
    Reference,
}

impl Isa {
    /// All of them, fastest first.
    pub const ALL: [Self; 6] = [
        Self::AmxBf16,
        Self::Avx512Bf16,
        Self::Avx512,
        Self::Avx2,
        Self::Portable,
        Self::Reference,
    ];

    /// The fastest path of this machine.
    pub fn best() -> Self {
        Self::ALL.into_iter().find(|isa| isa.available()).unwrap_or(Self::Portable)
    }

    /// Whether this machine, its operating system included, can run it.
    pub fn available(self) -> bool {
        match self {
            Self::Portable | Self::Reference => true,
            #[cfg(target_arch = "x86_64")]
            fast => x86::available(fast),
            #[cfg(not(target_arch = "x86_64"))]
            _ => false,
        }
    }

    /// The name used in configuration and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::AmxBf16 => "amx-bf16",
            Self::Avx512Bf16 => "avx512-bf16",
            Self::Avx512 => "avx512",
            Self::Avx2 => "avx2",
            Self::Portable => "portable",
            Self::Reference => "reference",
        }
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that is none of [`Isa::ALL`]'s.
#[derive(Debug, thiserror::Error)]
#[error(
    "unknown instruction set `{0}`: use amx-bf16, avx512-bf16, avx512, avx2, portable or reference"
)]
pub struct UnknownIsa(String);

impl FromStr for Isa {
    type Err = UnknownIsa;

    fn from_str(name: &str) -> Result<Self, UnknownIsa> {
        let known = Self::ALL.into_iter().find(|isa| isa.name() == name);
        known.ok_or_else(|| UnknownIsa(name.to_owned()))
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::{arch::x86_64::__cpuid_count, is_x86_feature_detected as detected, sync::OnceLock};

    use super::Isa;

    pub(super) fn available(isa: Isa) -> bool {
        match isa {
            Isa::Avx2 => detected!("avx2") && detected!("fma") && detected!("f16c"),
            Isa::Avx512 => {
                available(Isa::Avx2)
                    && detected!("avx512f")
                    && detected!("avx512bw")
                    && detected!("avx512dq")
                    && detected!("avx512vl")
            }
            Isa::Avx512Bf16 => available(Isa::Avx512) && detected!("avx512bf16"),
            Isa::AmxBf16 => available(Isa::Avx512Bf16) && amx(),
            Isa::Portable | Isa::Reference => true,
        }
    }

    /// Whether the tile unit is there and the kernel lets this process use it. The permission is
    /// the process's: threads started later inherit it.
    fn amx() -> bool {
        static AMX: OnceLock<bool> = OnceLock::new();
        *AMX.get_or_init(|| {
            let features = __cpuid_count(7, 0).edx;
            let (amx_bf16, amx_tile) = (features >> 22 & 1, features >> 24 & 1);
            amx_bf16 == 1 && amx_tile == 1 && permitted()
        })
    }

    #[cfg(target_os = "linux")]
    fn permitted() -> bool {
        const ARCH_PRCTL: i64 = 158;
        const REQUEST_PERMISSION: i64 = 0x1023;
        const TILE_DATA: i64 = 18;
        let result: i64;
        // SAFETY: arch_prctl(ARCH_REQ_XCOMP_PERM) touches no memory; the instruction clobbers rcx
        // and r11 as declared.
        unsafe {
            std::arch::asm!(
                "syscall",
                inlateout("rax") ARCH_PRCTL => result,
                in("rdi") REQUEST_PERMISSION,
                in("rsi") TILE_DATA,
                out("rcx") _,
                out("r11") _,
                options(nostack),
            );
        }
        result == 0
    }

    #[cfg(not(target_os = "linux"))]
    fn permitted() -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for isa in Isa::ALL {
            assert_eq!(isa.name().parse::<Isa>().unwrap(), isa);
        }
        assert!("sse9".parse::<Isa>().unwrap_err().to_string().contains("sse9"));
    }

    #[test]
    fn a_path_needs_what_it_builds_on() {
        for pair in Isa::ALL[..4].windows(2) {
            assert!(!pair[0].available() || pair[1].available());
        }
        assert!(Isa::best().available() && Isa::best() <= Isa::Portable);
    }
}
