//! The base model: its files checked, then its engine started.

use std::{
    error::Error,
    path::Path,
    sync::{Mutex, PoisonError},
    time::SystemTime,
};

use switchyard_kernels::{DeviceError, Dtype};

use super::{StartError, progress::Progress};
use crate::{
    adapters::BaseIdentity,
    checkpoint::Checkpoint,
    config::{Config, FixedConfig},
    device::OpenDevice,
    engine::EngineHandle,
    generation::BaseInfo,
    model::ModelConfig,
    startup::Startup,
    template::ChatTemplate,
    tokenizer::Tokenizer,
};

/// Opens the configured device.
pub(super) fn open_device(fixed: &FixedConfig) -> Result<OpenDevice, StartError> {
    let mut device = fixed.engine.device.clone();
    device.kernel_cache = fixed.adapter_cache.as_ref().map(|dir| dir.join("kernels"));
    Ok(device.open()?)
}

/// A base model whose small files have been read; the weights have not.
pub struct Base {
    /// The checkpoint.
    pub checkpoint: Checkpoint,
    /// The element type it is served in.
    pub dtype: Dtype,
    /// Its tokenizer.
    pub tokenizer: Tokenizer,
    /// Its own chat template.
    pub template: Option<ChatTemplate>,
    /// What adapters are checked against.
    pub identity: BaseIdentity,
    /// What clients are told.
    pub info: BaseInfo,
}

impl Base {
    /// Reads and checks everything but the weights.
    pub fn open(config: &Config) -> Result<Self, StartError> {
        let model = &config.fixed.model;
        let dir: &Path = &model.path;
        let place = || config.place("model.path");
        let broken = |why| StartError::Checkpoint { place: place(), why: Box::new(why) };
        let checkpoint = Checkpoint::open(dir).map_err(broken)?;
        let fingerprint = checkpoint.fingerprint().map_err(broken)?;
        let tokenizer =
            Tokenizer::load(dir).map_err(|why| StartError::Tokenizer { place: place(), why })?;
        let (tokens, rows) = (tokenizer.vocabulary(), checkpoint.config.vocabulary);
        if tokens > rows {
            return Err(StartError::Vocabulary { place: place(), tokens, rows });
        }
        let template = ChatTemplate::load(dir, &tokenizer)
            .map_err(|why| StartError::Template { place: place(), why })?;
        let dtype = model.dtype.unwrap_or(checkpoint.dtype);
        let mut aliases = model.aliases.clone();
        aliases.extend(checkpoint.name_or_path.clone().filter(|name| *name != model.id));
        let info = BaseInfo {
            id: model.id.clone(),
            aliases: model.aliases.clone(),
            max_positions: checkpoint.config.max_positions,
            vocabulary: checkpoint.config.vocabulary,
            eos: checkpoint.eos.clone(),
            created: SystemTime::now(),
            fingerprint: fingerprint.clone(),
        };
        let identity = BaseIdentity {
            id: model.id.clone(),
            aliases,
            revision: checkpoint.revision.clone(),
            fingerprint,
            config: checkpoint.config.clone(),
            dtype,
        };
        Ok(Self { checkpoint, dtype, tokenizer, template, identity, info })
    }

    /// One line about the model.
    pub fn summary(&self) -> String {
        let ModelConfig { layers, hidden, vocabulary, max_positions, .. } = self.checkpoint.config;
        format!(
            "{} ({layers} layers of {hidden}, {vocabulary} tokens, {max_positions} positions, {})",
            self.info.id,
            self.dtype.name()
        )
    }

    /// Starts the engine on the device, which reads the weights.
    pub fn start_engine(
        &self,
        device: OpenDevice,
        fixed: &FixedConfig,
        startup: &Startup,
    ) -> Result<EngineHandle, StartError> {
        let broken = |why: Box<dyn Error + Send + Sync>| StartError::Weights {
            place: fixed.model.path.display().to_string(),
            why,
        };
        let progress = Mutex::new(Progress::start(&self.info.id));
        let show = move |done, all| {
            progress.lock().unwrap_or_else(PoisonError::into_inner).show(done, all);
        };
        let weights = self.checkpoint.weights(Some(self.dtype), show);
        let weights = weights.map_err(|why| broken(Box::new(why)))?;
        let config = self.checkpoint.config.clone();
        let engine = device.start(config, weights, fixed.engine.limits, startup);
        let engine = engine.map_err(|error| match error {
            DeviceError::Weights(why) => broken(why),
            other => other.into(),
        })?;
        let (slabs, slab_bytes) = (engine.slabs(), engine.slab_bytes());
        tracing::info!(model = self.summary(), slabs, slab_bytes, "loaded");
        Ok(engine)
    }
}
