//! Stages of a step: their times over many steps, and the bytes that each has to read.

use std::{collections::BTreeMap, sync::Arc};

use serde::Serialize;
use switchyard_kernels::{Dtype, Linear, ProductStage, Site, Stage, StepTimes};

use super::step::WARM_UP;
use crate::{
    bench::{floor, measurement::round},
    model::{AdapterImage, ModelConfig},
};

/// A stage as it is printed.
#[derive(Serialize)]
pub(super) struct StageLine {
    stage: &'static str,
    /// Operations of a step.
    calls: usize,
    /// All of them together, in the median step.
    pub(super) us: f64,
    percent: f64,
    /// Weights, adapters, keys and values, and logits, each once.
    bytes: usize,
    gb_s: f64,
}

/// What a step reads.
#[derive(Clone, Copy)]
pub(super) struct Reads<'a> {
    pub(super) config: &'a ModelConfig,
    pub(super) dtype: Dtype,
    pub(super) sequences: u32,
    /// Tokens of each sequence, and how many of them are computed.
    pub(super) context: u32,
    pub(super) tokens: u32,
}

impl Reads<'_> {
    /// Bytes that a stage reads in a step with these adapters.
    pub(super) fn bytes(&self, stage: Stage, adapters: &[Arc<AdapterImage>]) -> usize {
        let site = |site: Site| {
            self.layers(site.linears(), |linear| {
                let (out, input) = self.config.linear_shape(linear);
                out * input
            })
        };
        let sequences = self.sequences as usize;
        match stage {
            Stage::Embed => {
                sequences * self.tokens as usize * self.config.hidden * self.dtype.size()
            }
            Stage::Product(ProductStage::Qkv) => site(Site::Qkv),
            Stage::Product(ProductStage::Output) => site(Site::Output),
            Stage::Product(ProductStage::GateUp) => site(Site::GateUp),
            Stage::Product(ProductStage::Down) => site(Site::Down),
            Stage::Product(ProductStage::Head) => {
                self.config.vocabulary * self.config.hidden * self.dtype.size()
            }
            Stage::Finished(product) => {
                let reader = match product {
                    ProductStage::Qkv => self.expanded(&[Site::Qkv], adapters),
                    ProductStage::Output => self.expanded(&[Site::Output], adapters),
                    ProductStage::GateUp => self.expanded(&[Site::GateUp], adapters),
                    ProductStage::Down => self.expanded(&[Site::Down], adapters),
                    ProductStage::Head => self.bytes(Stage::Sample, adapters),
                };
                self.bytes(Stage::Product(product), adapters) + reader
            }
            Stage::Attention => {
                let tokens = f64::from(self.sequences) * f64::from(self.context);
                floor::kv_bytes(self.config, self.dtype, tokens) as usize
            }
            Stage::Shrink => {
                let inputs = |linear| self.config.linear_shape(linear).1;
                self.tiles(&Linear::ALL, inputs, adapters)
            }
            Stage::RopeStore => self.expanded(&[Site::Qkv], adapters),
            Stage::Norm => self.expanded(&[Site::Output, Site::Down], adapters),
            Stage::Activate => self.expanded(&[Site::GateUp], adapters),
            Stage::Gather => 0,
            Stage::Sample => sequences * self.config.vocabulary * size_of::<f32>(),
        }
    }

    fn expanded(&self, sites: &[Site], adapters: &[Arc<AdapterImage>]) -> usize {
        let outputs = |linear| self.config.linear_shape(linear).0;
        sites.iter().map(|site| self.tiles(site.linears(), outputs, adapters)).sum()
    }

    /// Bytes of `A` or `B` of some linears, of all layers and adapters.
    fn tiles(
        &self,
        linears: &[Linear],
        long: impl Fn(Linear) -> usize,
        adapters: &[Arc<AdapterImage>],
    ) -> usize {
        let elements = |image: &Arc<AdapterImage>, layer, linear| {
            let ranks = image.map.linear(layer, linear).map_or(0, |tiles| tiles.padded_rank);
            ranks as usize * long(linear)
        };
        let layers = 0..self.config.layers;
        let of_image = |image| -> usize {
            let of_layer = |layer| linears.iter().map(move |&linear| (layer, linear));
            let pairs = layers.clone().flat_map(of_layer);
            pairs.map(|(layer, linear)| elements(image, layer, linear)).sum()
        };
        adapters.iter().map(of_image).sum::<usize>() * self.dtype.size()
    }

    fn layers(&self, linears: &[Linear], elements: impl Fn(Linear) -> usize) -> usize {
        let layer: usize = linears.iter().map(|&linear| elements(linear)).sum();
        self.config.layers * layer * self.dtype.size()
    }
}

/// Each stage in the median step, in the order in which a step comes to them.
pub(super) fn lines(profile: &[StepTimes], bytes: impl Fn(Stage) -> usize) -> Vec<StageLine> {
    let steps = &profile[profile.len().min(WARM_UP as usize)..];
    let mut order: Vec<Stage> = Vec::new();
    let mut seconds: BTreeMap<Stage, Vec<f64>> = BTreeMap::new();
    for step in steps {
        let mut sums: BTreeMap<Stage, f64> = BTreeMap::new();
        for &(stage, time) in step {
            *sums.entry(stage).or_default() += time;
            if !order.contains(&stage) {
                order.push(stage);
            }
        }
        sums.into_iter().for_each(|(stage, sum)| seconds.entry(stage).or_default().push(sum));
    }
    let medians: Vec<f64> = order.iter().map(|stage| median(&seconds[stage])).collect();
    let all: f64 = medians.iter().sum();
    let line = |(&stage, &median): (&Stage, &f64)| StageLine {
        stage: stage.name(),
        calls: steps[0].iter().filter(|(other, _)| *other == stage).count(),
        us: round(median * 1e6, 1),
        percent: round(median / all * 100.0, 1),
        bytes: bytes(stage),
        gb_s: round(bytes(stage) as f64 / median / 1e9, 1),
    };
    order.iter().zip(&medians).map(line).collect()
}

fn median(values: &[f64]) -> f64 {
    let mut ascending = values.to_vec();
    ascending.sort_by(f64::total_cmp);
    ascending[ascending.len() / 2]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        bench::{adapters::AdapterSource, adapters::Ranks, shape},
        model::ImageMemory,
    };

    const PRODUCTS: [ProductStage; 5] = [
        ProductStage::Qkv,
        ProductStage::Output,
        ProductStage::GateUp,
        ProductStage::Down,
        ProductStage::Head,
    ];

    #[test]
    fn stages_read_the_weights_and_the_adapters_once() {
        let config = shape::named("tiny").expect("named");
        let dtype = Dtype::Bf16;
        let reads = Reads { config: &config, dtype, sequences: 2, context: 48, tokens: 1 };
        let product = |product| reads.bytes(Stage::Product(product), &[]);
        let products: usize = PRODUCTS.into_iter().map(product).sum();
        assert_eq!(products, floor::weight_bytes(&config, dtype));
        let slab_bytes = config.attention_shape(dtype).slab_bytes();
        assert_eq!(reads.bytes(Stage::Attention, &[]), 2 * 3 * slab_bytes);
        let memory = ImageMemory::pageable(slab_bytes);
        let adapters =
            AdapterSource::new(&config, dtype, Ranks::All(16), memory).unwrap().images(2);
        let lora = [Stage::Shrink, Stage::RopeStore, Stage::Norm, Stage::Activate];
        let elements: usize = Linear::ALL
            .into_iter()
            .map(|linear| {
                let (out, input) = config.linear_shape(linear);
                16 * (out + input)
            })
            .sum();
        let read: usize = lora.into_iter().map(|stage| reads.bytes(stage, &adapters)).sum();
        assert_eq!(read, 2 * config.layers * elements * 2);
        let finished = |product| reads.bytes(Stage::Finished(product), &adapters);
        let of_layers: usize = PRODUCTS[..4].iter().map(|&product| finished(product)).sum();
        let shrunk = reads.bytes(Stage::Shrink, &adapters);
        let head = product(ProductStage::Head);
        assert_eq!(of_layers, products - head + read - shrunk);
        assert!(lora.into_iter().all(|stage| reads.bytes(stage, &[]) == 0));
    }

    #[test]
    fn a_stage_is_its_calls_together_in_the_median_step() {
        let step = |ms: f64| -> StepTimes {
            vec![(Stage::Embed, ms), (Stage::Norm, 1e-3), (Stage::Norm, ms * 3.0)]
        };
        let mut profile = vec![step(9.0); WARM_UP as usize];
        profile.extend([step(1e-3), step(3e-3), step(2e-3)]);
        let lines = lines(&profile, |_| 7_000_000);
        let seen: Vec<_> = lines.iter().map(|l| (l.stage, l.calls, l.us, l.percent)).collect();
        assert_eq!(seen, [("embed", 1, 2000.0, 22.2), ("norm", 2, 7000.0, 77.8)]);
        assert_eq!(lines[1].gb_s, 1.0);
    }
}
