//! One adapter's directory, read and checked against the base.

use std::{collections::BTreeMap, path::Path};

use switchyard_kernels::{Dtype, HostMatrix, Linear, MAX_RANK};

use super::{
    AdapterError, BaseIdentity, compatibility,
    peft_config::{FINGERPRINT, PeftConfig},
    tensor_key::{self, Half},
};
use crate::{
    checkpoint::{TensorEntry, TensorFile},
    model::{AdapterId, AdapterImage, ImageMemory, LoraLinear, LoraWeights},
};

/// The configuration of an adapter.
pub(super) const CONFIG: &str = "adapter_config.json";
/// Its weights.
pub(super) const WEIGHTS: &str = "adapter_model.safetensors";

/// Tensors of the linears that have any: the names of `A` and `B`.
type Found = BTreeMap<(usize, Linear), [Option<String>; 2]>;

/// A directory that fits the base; its weights have not been read.
pub(super) struct AdapterDirectory<'a> {
    dir: &'a Path,
    base: &'a BaseIdentity,
    file: TensorFile,
    linears: Vec<Declared>,
}

/// One linear's tensors, whose shapes have been checked.
struct Declared {
    layer: usize,
    linear: Linear,
    scale: f32,
    /// Tensor `[rank, in]`.
    a: String,
    /// Tensor `[out, rank]`.
    b: String,
}

impl<'a> AdapterDirectory<'a> {
    /// Reads configuration and header and checks all but the weights themselves.
    pub(super) fn open(
        dir: &'a Path,
        base: &'a BaseIdentity,
        allow_base_mismatch: bool,
    ) -> Result<Self, AdapterError> {
        let config = PeftConfig::read(&dir.join(CONFIG))?;
        let file = TensorFile::open(&dir.join(WEIGHTS))?;
        if !allow_base_mismatch {
            compatibility::check(&dir.join(CONFIG), &config, file.metadata(FINGERPRINT), base)?;
        }
        let found = find_tensors(&file, base)?;
        check_declared(dir, &config, &found, base)?;
        let linears = found.into_iter().map(|found| declared(&file, &config, found, base));
        let linears = linears.collect::<Result<_, _>>()?;
        Ok(Self { dir, base, file, linears })
    }

    /// Reads the weights and packs them for the base's pool, into `memory`.
    pub(super) fn pack(&self, memory: &ImageMemory) -> Result<AdapterImage, AdapterError> {
        let linears = self.linears.iter().map(|declared| self.read(declared));
        let weights = LoraWeights { linears: linears.collect::<Result<_, _>>()? };
        let packed = weights.pack(&self.base.config, memory, id(&weights));
        packed.map_err(|source| AdapterError::Pack { path: self.dir.to_owned(), source })
    }

    /// The weights of one linear in the base's element type.
    fn read(&self, declared: &Declared) -> Result<LoraLinear, AdapterError> {
        let Declared { layer, linear, scale, .. } = *declared;
        let matrix = |key| matrix(&self.file, key, self.base.dtype);
        Ok(LoraLinear { layer, linear, scale, a: matrix(&declared.a)?, b: matrix(&declared.b)? })
    }
}

/// Sorts the file's tensors by linear; every one must have a place.
fn find_tensors(file: &TensorFile, base: &BaseIdentity) -> Result<Found, AdapterError> {
    let mut found = Found::new();
    let mut adapter = None;
    for key in file.tensors().keys() {
        let refuse = |reason: String, remedy: &str| {
            Err(AdapterError::Tensor {
                path: file.path().to_owned(),
                key: key.clone(),
                reason,
                remedy: remedy.to_owned(),
            })
        };
        let parsed = match tensor_key::parse(key) {
            Ok(parsed) => parsed,
            Err(reason) => {
                return refuse(reason.to_owned(), "merge the adapter into the base, or retrain");
            }
        };
        if parsed.layer >= base.config.layers {
            let layers = base.config.layers;
            let reason = format!("{} has {layers} layers, counted from 0", base.id);
            return refuse(reason, "serve the base that it was trained on");
        }
        if *adapter.get_or_insert(parsed.adapter) != parsed.adapter {
            return refuse("the file holds several adapters".to_owned(), "save each by itself");
        }
        let names = found.entry((parsed.layer, parsed.linear)).or_default();
        if let Some(other) = names[parsed.half as usize].replace(key.clone()) {
            return refuse(format!("`{other}` means the same weights"), "remove one of them");
        }
    }
    Ok(found)
}

/// Compares what the configuration declares with what is there.
fn check_declared(
    dir: &Path,
    config: &PeftConfig,
    found: &Found,
    base: &BaseIdentity,
) -> Result<(), AdapterError> {
    let path = dir.join(WEIGHTS);
    let mut modules = Vec::new();
    for layer in 0..base.config.layers {
        for linear in Linear::ALL {
            let module = tensor_key::module(layer, linear);
            let names = found.get(&(layer, linear));
            let missing = match (names, config.declares(layer, &module)) {
                (None, Some(true)) => Some("lora_A"),
                (Some([None, _]), _) => Some("lora_A"),
                (Some([_, None]), _) => Some("lora_B"),
                _ => None,
            };
            if let Some(missing) = missing {
                return Err(AdapterError::MissingTensor { path, module, missing });
            }
            if let (Some([Some(key), _]), Some(false)) = (names, config.declares(layer, &module)) {
                return Err(AdapterError::Tensor {
                    path,
                    key: key.clone(),
                    reason: "target_modules does not declare its module".to_owned(),
                    remedy: "correct target_modules in adapter_config.json".to_owned(),
                });
            }
            modules.push(module);
        }
    }
    match config.idle_target(&modules) {
        None if found.is_empty() => Err(AdapterError::MissingTensor {
            path,
            module: "any linear".to_owned(),
            missing: "lora_A",
        }),
        None => Ok(()),
        Some(target) => Err(AdapterError::Setting {
            path: dir.join(CONFIG),
            key: "target_modules".to_owned(),
            found: format!("{target:?} among others"),
            reason: "the base has no such linear".to_owned(),
            remedy: format!("use {}", Linear::ALL.map(tensor_key::path).join(", ")),
        }),
    }
}

/// Checks the shapes of one linear's tensors.
fn declared(
    file: &TensorFile,
    config: &PeftConfig,
    ((layer, linear), names): ((usize, Linear), [Option<String>; 2]),
    base: &BaseIdentity,
) -> Result<Declared, AdapterError> {
    let module = tensor_key::module(layer, linear);
    let [Some(a), Some(b)] = names else { unreachable!("both halves were checked to be there") };
    let (outputs, inputs) = base.config.linear_shape(linear);
    let rank = file.tensors()[&a].shape.first().copied().unwrap_or(0);
    for (key, half, expected) in [(&a, Half::A, [rank, inputs]), (&b, Half::B, [outputs, rank])] {
        let shape = &file.tensors()[key].shape;
        let refuse = |reason, remedy: &str| {
            let (path, key) = (file.path().to_owned(), key.clone());
            Err(AdapterError::Tensor { path, key, reason, remedy: remedy.to_owned() })
        };
        if *shape != expected {
            let order = if half == Half::A { "rank, in" } else { "out, rank" };
            let reason = format!("shape {shape:?}, but {} calls for {expected:?}", base.id);
            return refuse(format!("{reason} ({order})"), "serve the base that it was trained on");
        }
        if rank == 0 || rank > MAX_RANK {
            return refuse(format!("rank {rank} is not in 1..={MAX_RANK}"), "train a lower rank");
        }
        if rank as f64 != config.rank(&module) {
            let declared = config.rank(&module);
            let reason = format!("rank {rank}, but adapter_config.json says {declared}");
            return refuse(reason, "correct r or rank_pattern: the scale depends on them");
        }
    }
    Ok(Declared { layer, linear, scale: config.scale(&module, rank), a, b })
}

fn matrix(file: &TensorFile, key: &str, dtype: Dtype) -> Result<HostMatrix, AdapterError> {
    let entry: &TensorEntry = &file.tensors()[key];
    let mut matrix = HostMatrix::zeroed(dtype, entry.shape[0], entry.shape[1]);
    file.read((entry, 0), dtype, matrix.data.bytes_mut())?;
    if !all_finite(matrix.data.bytes(), dtype) {
        return Err(AdapterError::Tensor {
            path: file.path().to_owned(),
            key: key.to_owned(),
            reason: format!("it holds NaN or infinity as {}", dtype.name()),
            remedy: "retrain it, or serve the base in a wider dtype".to_owned(),
        });
    }
    Ok(matrix)
}

/// An element is finite unless all bits of its exponent are set.
fn all_finite(bytes: &[u8], dtype: Dtype) -> bool {
    let mut halves = bytes.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]]));
    match dtype {
        Dtype::F16 => halves.all(|bits| bits & 0x7c00 != 0x7c00),
        Dtype::Bf16 => halves.all(|bits| bits & 0x7f80 != 0x7f80),
        // The upper half of a little-endian f32 holds its exponent.
        Dtype::F32 => halves.skip(1).step_by(2).all(|bits| bits & 0x7f80 != 0x7f80),
    }
}

/// The hash of what an adapter computes: scales and converted weights in a fixed order.
fn id(weights: &LoraWeights) -> AdapterId {
    let mut hasher = blake3::Hasher::new();
    for lora in &weights.linears {
        let rank = lora.a.rows;
        let head = [lora.layer as u32, lora.linear as u32, rank as u32, lora.scale.to_bits()];
        hasher.update(lora.a.dtype.name().as_bytes());
        for number in head {
            hasher.update(&number.to_le_bytes());
        }
        hasher.update(lora.a.data.bytes()).update(lora.b.data.bytes());
    }
    AdapterId(*hasher.finalize().as_bytes())
}
