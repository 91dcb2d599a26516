//! Logits to tokens, in two steps: `launch` queues the drawing and the way back, `collect` waits.

use std::sync::Arc;

use cudarc::driver::{CudaEvent, result};

use super::{
    Context, Tensor,
    compiler::Source,
    deferred::settle,
    device::Device,
    launch::{Grid, Parameters},
    memory::{DeviceBuffer, PinnedBuffer},
};
use crate::{DeviceError, Dtype, SampleRow, Sampled, TokenLogprob, cpu::philox::uniform};

pub(super) const SOURCE: Source = Source { name: "sample", text: include_str!("sample.cu") };

/// `THREADS`, `NONE` and `TOP_MAX` of `sample.cu`.
const THREADS: u32 = 1024;
const NONE: u32 = u32::MAX;
const TOP_MAX: u32 = 128;
/// Tokens whose weights `sample.cu` can add up.
const VOCABULARY_MAX: usize = 1 << 19;
/// Words of `RowImage`.
const ROW_WORDS: usize = 10;
/// Words that images and results have room for at first; they grow when a draw needs more.
const FIRST_WORDS: usize = 1 << 14;
const WHAT: &str = "drawn tokens";

/// What draws have on the device and in pinned memory.
pub(super) struct Sampler {
    device: Arc<Device>,
    /// `[rows]` of `RowImage`, then the words of masks.
    image: DeviceBuffer,
    /// `[rows]` tokens, then reports.
    results: DeviceBuffer,
    /// The host's sides: one draw may be queued before the draw ahead of it is collected.
    slots: [Slot; 2],
    draws: u64,
}

struct Slot {
    image: PinnedBuffer,
    results: PinnedBuffer,
    /// Behind the last copy of the slot's draw.
    done: CudaEvent,
}

/// Tokens on their way. Good until the second draw after it is launched.
pub struct Draw {
    /// Which of all draws.
    number: u64,
    /// `[rows]` word of each row's report, if it asked for one.
    reports: Vec<Option<u32>>,
}

impl Slot {
    fn new(device: &Arc<Device>, words: usize) -> Result<Self, DeviceError> {
        let pinned = || PinnedBuffer::new(device, words * 4, WHAT);
        let done = device.context.new_event(None).expect("the context is alive");
        Ok(Self { image: pinned()?, results: pinned()?, done })
    }
}

impl Sampler {
    pub(super) fn new(device: &Arc<Device>) -> Result<Self, DeviceError> {
        let buffer = || DeviceBuffer::new(device, FIRST_WORDS * 4, WHAT);
        let slots = [Slot::new(device, FIRST_WORDS)?, Slot::new(device, FIRST_WORDS)?];
        let (image, results) = (buffer()?, buffer()?);
        Ok(Self { device: device.clone(), image, results, slots, draws: 0 })
    }

    /// `[rows]` the tokens of the latest draw, for kernels queued after it and before the next.
    pub(super) fn tokens(&self) -> u64 {
        self.results.address()
    }

    /// Takes the next slot, with room for so many words.
    fn begin(&mut self, image_words: usize, result_words: usize) {
        let slot = &mut self.slots[(self.draws % 2) as usize];
        slot.done.synchronize().expect("the draw before the last");
        let grown =
            |words: usize, len: usize| (words * 4 > len).then(|| words.next_power_of_two() * 4);
        const MEMORY: &str = "memory for more drawn tokens";
        let pinned = |len| PinnedBuffer::new(&self.device, len, WHAT).expect(MEMORY);
        let buffer = |len| DeviceBuffer::new(&self.device, len, WHAT).expect(MEMORY);
        if let Some(len) = grown(image_words, slot.image.bytes().len()) {
            slot.image = pinned(len);
        }
        if let Some(len) = grown(result_words, slot.results.bytes().len()) {
            slot.results = pinned(len);
        }
        if let Some(len) = grown(image_words, self.image.len()) {
            self.image = buffer(len);
        }
        if let Some(len) = grown(result_words, self.results.len()) {
            self.results = buffer(len);
        }
    }

    /// Queues the copy of the results to the current slot and moves on to the next.
    fn end(&mut self, result_words: usize) {
        let slot = &mut self.slots[(self.draws % 2) as usize];
        // At least a word, so that a draw of nothing is a copy too.
        let to = &mut slot.results.bytes_mut()[..result_words.max(1) * 4];
        let stream = self.device.stream();
        // SAFETY: both ranges are within their allocations. The pinned one is read after `done`
        // alone, and neither is freed before the stream has passed: freeing waits.
        let queued =
            unsafe { result::memcpy_dtoh_async(to, self.results.address(), stream.cu_stream()) };
        queued.and_then(|()| slot.done.record(stream)).expect("copy from the device");
        self.draws += 1;
    }
}

/// Queues one draw per row of `logits` `[rows, vocabulary]`.
pub(super) fn launch(cx: &mut Context, logits: &Tensor, rows: &[SampleRow]) -> Draw {
    let vocabulary = logits.cols;
    assert!(
        rows.is_empty() || logits.rows.live == rows.len(),
        "one way to sample per row of logits"
    );
    assert!((1..=VOCABULARY_MAX).contains(&vocabulary), "a vocabulary of at most 2^19");
    if !rows.is_empty() {
        settle(cx, logits);
    }
    let kernel = match logits.dtype {
        Dtype::F32 => "sample_f32",
        Dtype::Bf16 => "sample_bf16",
        Dtype::F16 => unreachable!("no operation writes f16"),
    };
    let reports = reports(rows);
    let number = cx.sampler.draws;
    let image = image(rows, &reports, vocabulary);
    let result_words = rows.len() + rows.iter().map(report_words).sum::<usize>();
    cx.sampler.begin(image.len(), result_words);
    let Sampler { slots, image: on_device, results, .. } = &mut cx.sampler;
    let pinned = &mut slots[(number % 2) as usize].image;
    for (to, word) in pinned.bytes_mut().chunks_exact_mut(4).zip(&image) {
        to.copy_from_slice(&word.to_le_bytes());
    }
    on_device.write_pinned(0, pinned, image.len() * 4);
    let parameters = Parameters::default()
        .with(logits.data.address())
        .with(vocabulary as u32)
        .with(on_device.address())
        .with(results.address());
    let grid = Grid::flat(rows.len() as u32, THREADS);
    if rows.is_empty() {
        cx.sampler.end(0);
        return Draw { number, reports };
    }
    // SAFETY: the parameters of `sample_*`: a block reads its row of the logits, whose type is that
    // of the kernel, its `RowImage` and the mask that this names, and writes its token and its
    // report, both within `result_words`, for which `begin` made room.
    unsafe { cx.launch((SOURCE.name, kernel), grid, parameters) };
    cx.sampler.end(result_words);
    Draw { number, reports }
}

/// Waits for a draw.
pub(super) fn collect(cx: &mut Context, draw: Draw) -> Vec<Sampled> {
    let Draw { number, reports } = draw;
    assert!(number + 2 >= cx.sampler.draws, "its slot is not in use by a later draw");
    let slot = &cx.sampler.slots[(number % 2) as usize];
    slot.done.synchronize().expect("the draw");
    let word = |at: usize| {
        let bytes = slot.results.bytes()[at * 4..].first_chunk().expect("a word of the results");
        u32::from_le_bytes(*bytes)
    };
    let sampled = |(row, report): (usize, &Option<u32>)| {
        let token = word(row);
        let Some(report) = *report else {
            return Sampled { token, logprob: None, top: Vec::new() };
        };
        let (own, count) = (report as usize, word(report as usize + 1) as usize);
        let logprob = |at| f32::from_bits(word(at));
        let pairs = (0..count).map(|i| own + 2 + 2 * i);
        let top = pairs.map(|at| TokenLogprob { token: word(at), logprob: logprob(at + 1) });
        Sampled { token, logprob: Some(logprob(own)), top: top.collect() }
    };
    reports.iter().enumerate().map(sampled).collect()
}

/// Words of a row's report: its own log-probability, a count, so many pairs at most.
fn report_words(row: &SampleRow) -> usize {
    row.logprobs.map_or(0, |top| 2 + 2 * top as usize)
}

/// `[rows]` first word of each report among the results, behind the tokens.
fn reports(rows: &[SampleRow]) -> Vec<Option<u32>> {
    let mut next = rows.len();
    let place = |row: &SampleRow| {
        let start = next as u32;
        next += report_words(row);
        row.logprobs.map(|_| start)
    };
    rows.iter().map(place).collect()
}

/// `[rows]` of `RowImage`, then the words of masks.
fn image(rows: &[SampleRow], reports: &[Option<u32>], vocabulary: usize) -> Vec<u32> {
    let mut image = Vec::with_capacity(rows.len() * ROW_WORDS);
    let mut masks: Vec<u32> = Vec::new();
    for (row, report) in rows.iter().zip(reports) {
        let top = row.logprobs.unwrap_or(0);
        assert!(top <= TOP_MAX, "at most {TOP_MAX} alternatives");
        let first_mask_word = (rows.len() * ROW_WORDS + masks.len()) as u32;
        let mask = row.mask.as_ref().map(|mask| &mask[..mask.len().min(vocabulary.div_ceil(32))]);
        masks.extend(mask.unwrap_or_default());
        let uniform = uniform(row.seed, row.position).to_bits();
        let words: [u32; ROW_WORDS] = [
            uniform as u32,
            (uniform >> 32) as u32,
            row.temperature.to_bits(),
            row.top_p.to_bits(),
            if row.top_k as usize >= vocabulary { 0 } else { row.top_k },
            mask.map_or(NONE, |_| first_mask_word),
            mask.map_or(0, |mask| mask.len() as u32),
            top,
            report.unwrap_or(NONE),
            0,
        ];
        image.extend(words);
    }
    image.extend(masks);
    image
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROW: SampleRow = SampleRow {
        temperature: 0.5,
        top_k: 9,
        top_p: 0.75,
        seed: 1,
        position: 2,
        logprobs: None,
        mask: None,
    };

    #[test]
    fn an_image_names_masks_and_reports() {
        let masked = SampleRow { mask: Some([7, 8, 9].into()), logprobs: Some(3), ..ROW };
        let empty = SampleRow { mask: Some([].into()), logprobs: Some(0), ..ROW };
        let rows = [ROW, masked, empty];
        let reports = reports(&rows);
        assert_eq!(reports, [None, Some(3), Some(11)]);
        let image = image(&rows, &reports, 40);
        assert_eq!(image.len(), 3 * ROW_WORDS + 2, "words beyond the vocabulary stay behind");
        assert_eq!(image[2..10], [0.5f32.to_bits(), 0.75f32.to_bits(), 9, NONE, 0, 0, NONE, 0]);
        assert_eq!(image[14..20], [9, 30, 2, 3, 3, 0]);
        assert_eq!(image[24..30], [9, 32, 0, 0, 11, 0]);
        assert_eq!(image[30..], [7, 8]);
        let bits = u64::from(image[0]) | u64::from(image[1]) << 32;
        assert_eq!(f64::from_bits(bits), uniform(1, 2));
    }

    #[test]
    fn a_cut_above_the_vocabulary_is_none() {
        assert_eq!(image(&[ROW], &[None], 9)[4], 0);
        assert_eq!(image(&[ROW], &[None], 10)[4], 9);
    }
}
