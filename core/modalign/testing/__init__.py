"""The contract kit: what every component and plugin must do, as plain checks.

The only test a plugin needs::

    from modalign.testing import parametrize_checks

    @parametrize_checks("modalign-audio")
    def test_contract(check):
        check()

A check takes what builds a component, so that a class will do: ``check_loss_prefers_true_pairs(MyLoss)``.
"""

from .battery import checks, parametrize_checks
from .encoder import (
    check_encoder_eval_is_deterministic,
    check_encoder_features_have_the_right_form,
    check_encoder_fingerprint_follows_its_weights,
    check_encoder_gradient_reaches_its_parameters,
    check_encoder_leaves_its_batch_alone,
    check_encoder_rows_are_independent,
    check_encoder_state_dict_round_trips,
)
from .loss import (
    check_loss_accepts_three_modalities,
    check_loss_handles_missing_modalities,
    check_loss_handles_one_row,
    check_loss_ignores_row_order,
    check_loss_is_a_finite_scalar,
    check_loss_leaves_its_input_alone,
    check_loss_prefers_true_pairs,
    check_loss_reaches_every_modality,
    example_embeddings,
)
from .modality import (
    check_modality_augment_draws_from_its_generator,
    check_modality_augment_keeps_shapes,
    check_modality_batch_has_n_rows,
    check_modality_example_is_deterministic,
    check_modality_padding_leaves_items_alone,
    check_modality_pickles,
    check_modality_preview_can_be_shown,
    check_modality_refuses_empty_values,
    check_modality_refuses_other_kinds,
)
from .plugin import (
    check_plugin_declares_without_heavy_imports,
    check_plugin_loads,
    check_plugin_matches_the_registry,
    check_plugin_requires_a_core_range,
    check_plugin_targets_resolve,
)
from .projection import (
    check_projection_eval_is_deterministic,
    check_projection_gradient_reaches_everything,
    check_projection_later_modality_changes_nothing,
    check_projection_padding_changes_nothing,
    check_projection_rows_are_independent,
    check_projection_shapes,
    check_projection_state_dict_round_trips,
)
from .task import (
    ExampleSpace,
    ExampleSplit,
    check_task_is_deterministic,
    check_task_ranks_true_pairs_first,
    check_task_reports_its_primary,
    example_split,
)

__all__ = [
    "ExampleSpace",
    "ExampleSplit",
    "check_encoder_eval_is_deterministic",
    "check_encoder_features_have_the_right_form",
    "check_encoder_fingerprint_follows_its_weights",
    "check_encoder_gradient_reaches_its_parameters",
    "check_encoder_leaves_its_batch_alone",
    "check_encoder_rows_are_independent",
    "check_encoder_state_dict_round_trips",
    "check_loss_accepts_three_modalities",
    "check_loss_handles_missing_modalities",
    "check_loss_handles_one_row",
    "check_loss_ignores_row_order",
    "check_loss_is_a_finite_scalar",
    "check_loss_leaves_its_input_alone",
    "check_loss_prefers_true_pairs",
    "check_loss_reaches_every_modality",
    "check_modality_augment_draws_from_its_generator",
    "check_modality_augment_keeps_shapes",
    "check_modality_batch_has_n_rows",
    "check_modality_example_is_deterministic",
    "check_modality_padding_leaves_items_alone",
    "check_modality_pickles",
    "check_modality_preview_can_be_shown",
    "check_modality_refuses_empty_values",
    "check_modality_refuses_other_kinds",
    "check_plugin_declares_without_heavy_imports",
    "check_plugin_loads",
    "check_plugin_matches_the_registry",
    "check_plugin_requires_a_core_range",
    "check_plugin_targets_resolve",
    "check_projection_eval_is_deterministic",
    "check_projection_gradient_reaches_everything",
    "check_projection_later_modality_changes_nothing",
    "check_projection_padding_changes_nothing",
    "check_projection_rows_are_independent",
    "check_projection_shapes",
    "check_projection_state_dict_round_trips",
    "check_task_is_deterministic",
    "check_task_ranks_true_pairs_first",
    "check_task_reports_its_primary",
    "checks",
    "example_embeddings",
    "example_split",
    "parametrize_checks",
]
