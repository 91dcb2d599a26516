//! The one wasmtime engine of the process, shared by every plugin and every generation.

use wasmtime::{Config, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, Result};

use super::PluginLimits;

/// Instances alive at once: one per running stream and call, and the spares. Costs 4 GiB of
/// address space each, no memory.
const INSTANCES_MAX: u32 = 1000;
/// Guest stack. A quarter of a thread's own, so that host functions always have room.
const STACK_BYTES: usize = 512 << 10;
/// What one component may hold: a Rust or C guest has 3 core modules, a Python guest about 40.
const CORE_INSTANCES_PER_COMPONENT: u32 = 64;
const TABLES_PER_COMPONENT: u32 = 16;
const MEMORIES_PER_COMPONENT: u32 = 4;
/// Entries of one table, about the number of functions called through pointers.
pub(super) const TABLE_ELEMENTS: usize = 20_000;
/// Bytes of a returned slot that are zeroed in place and stay mapped, which saves page faults.
const KEEP_RESIDENT: usize = 256 << 10;
/// The host's own bookkeeping for one instance.
const INSTANCE_BYTES: usize = 4 << 20;

/// An engine for small trusted-by-nobody guests: no threads, no async, epochs on, pooled slots.
pub(super) fn engine() -> Result<Engine> {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(INSTANCES_MAX)
        .total_core_instances(INSTANCES_MAX * 8)
        .total_memories(INSTANCES_MAX)
        .total_tables(INSTANCES_MAX * 4)
        .max_core_instances_per_component(CORE_INSTANCES_PER_COMPONENT)
        .max_tables_per_component(TABLES_PER_COMPONENT)
        .max_memories_per_component(MEMORIES_PER_COMPONENT)
        .max_component_instance_size(INSTANCE_BYTES)
        .max_core_instance_size(INSTANCE_BYTES)
        .max_memory_size(PluginLimits::MEMORY_MAX)
        .table_elements(TABLE_ELEMENTS)
        .linear_memory_keep_resident(KEEP_RESIDENT)
        .table_keep_resident(KEEP_RESIDENT / 4);
    let mut config = Config::new();
    config
        .concurrency_support(false)
        .epoch_interruption(true)
        .max_wasm_stack(STACK_BYTES)
        .memory_init_cow(true)
        .wasm_memory64(false)
        .wasm_multi_memory(false)
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    Engine::new(&config)
}
