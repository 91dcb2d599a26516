//! `GET /v1/models` and `GET /v1/models/{id}`: the base first, then its adapters.

use axum::{
    Json,
    extract::{Path, State},
};

use super::{
    ApiError, App,
    openai::{AdapterCard, ModelCard, ModelList},
    reply::unix_seconds,
};
use crate::{adapters::AdapterGeneration, generation::BaseInfo};

const OWNER: &str = "switchyard";

/// All models.
pub(super) async fn list(State(app): State<App>) -> Json<ModelList> {
    let (base, snapshot) = (&app.host.base, app.host.snapshot.load());
    let adapters = snapshot.catalogue.iter().map(|adapter| adapter_card(base, adapter));
    let data = std::iter::once(base_card(base)).chain(adapters).collect();
    Json(ModelList { object: "list", data })
}

/// One model; an alias of the base gives the base.
pub(super) async fn retrieve(
    State(app): State<App>,
    Path(id): Path<String>,
) -> Result<Json<ModelCard>, ApiError> {
    let base = &app.host.base;
    if base.is_named(&id) {
        return Ok(Json(base_card(base)));
    }
    let adapter = app.host.snapshot.load().catalogue.get(&id);
    let adapter = adapter.ok_or_else(|| ApiError::model_not_found(&id))?;
    Ok(Json(adapter_card(base, &adapter)))
}

fn base_card(base: &BaseInfo) -> ModelCard {
    ModelCard {
        id: base.id.clone(),
        object: "model",
        created: unix_seconds(base.created),
        owned_by: OWNER,
        root: base.id.clone(),
        parent: None,
        max_model_len: base.max_positions,
        switchyard: None,
    }
}

fn adapter_card(base: &BaseInfo, adapter: &AdapterGeneration) -> ModelCard {
    ModelCard {
        id: adapter.name.clone(),
        created: unix_seconds(adapter.created),
        parent: Some(base.id.clone()),
        switchyard: Some(AdapterCard {
            generation: adapter.content.id.to_string(),
            rank: adapter.content.rank,
            tags: adapter.tags.iter().cloned().collect(),
        }),
        ..base_card(base)
    }
}
