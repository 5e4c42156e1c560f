"""The faults that `mutations.py` puts into the code, one line each, and the tests that must notice.

When a module has moved, change its path here; when tests have, theirs. `python tests/mutations.py --list` says what
does not fit any more.
"""

from __future__ import annotations

XF = "diffusion/test_anomalyxfusion_equations.py::test_"
XF_SEEN = "diffusion/test_anomalyxfusion_conditions.py::test_"
AC = "diffusion/test_anomalycontrol_equations.py::test_"
ATTENTION = "diffusion/test_attention.py::test_"
LOSS = "diffusion/test_losses.py::test_"
LOOP = "diffusion/test_denoise.py::test_"
MASKS = "diffusion/test_mask_model.py::test_"
WHOLES = "diffusion/test_whole_masks.py::test_"
LATENTS = "diffusion/test_latents.py::test_"
READER = "diffusion/test_reference_equations.py::test_"
CLEAN = "diffusion/test_clean_unet.py::test_"
DRAFTS = "diffusion/test_drafts.py::test_"
BACKBONE = "diffusion/test_backbone.py::test_"
LEVELS = "diffusion/test_noise_levels.py::test_"
COMPOSE = "test_compose_equations.py::test_"
ANALOGY = "methods/test_analogy.py::test_"
ANALOGY_BY_HAND = "methods/test_analogy_equations.py::test_"
TUNING = "diffusion/test_tuning.py::test_"
SIDE = "diffusion/test_side_by_side.py::test_"
FOLDS = "diffusion/test_folds.py::test_"
SPLITS = "datasets/test_splits.py::test_"
REALISM = "evaluation/test_realism.py::test_"
ONE_CLASS = "evaluation/test_one_class.py::test_"
FROZEN = "evaluation/test_frozen.py::test_"
ANNOTATED = "datasets/test_annotated.py::test_"
EXPORTS = "datasets/test_exports.py::test_"
EXPORT_RUNS = "datasets/test_export_runs.py::test_"
STORES = "datasets/test_stores.py::test_"
CAPTIONING = "datasets/test_captioning.py::test_"
VOC_CLASSES = "datasets/test_voc_classes.py::test_"
ONE_CLASS_DIVISION = "datasets/test_one_class_export.py::test_"
LOCO = "datasets/test_mvtec_loco.py::test_"
STRUCTURE = "test_structure.py::test_"
GROWTH = "test_growth.py::test_"
RIMS = "test_rims.py::test_"
TOOLS = "datasets/test_annotation_tools.py::test_"
MEND = "datasets/test_mend.py::test_"
REPORT = "report/test_report_page.py::test_"
STUDIO_MAKING = "studio/test_studio_making.py::test_"
STUDIO_FITS = "studio/test_studio_fits.py::test_"
STUDIO_MASKS = "studio/test_studio_masks.py::test_"
STUDIO_WORKERS = "studio/test_studio_workers.py::test_"
STUDIO_SAFETY = "studio/test_studio_safety.py::test_"
GATE = "quality/test_gate.py::test_"
GATE_CHECKS = "quality/test_gate_checks.py::test_"
DIALS = "test_dials.py::test_"
MIXTURE = "test_mixture.py::test_"
MISSES = "test_misses.py::test_"
MISSED = "evaluation/test_missed.py::test_"
REFIT = "quality/test_refit.py::test_"
PLAN = "test_plan.py::test_"
JOBS = "test_workers.py::test_"
COMBINED = "test_combined.py::test_"
RAY = "test_ray.py::test_"
PARALLEL = "diffusion/test_parallel.py::test_"
RESUME = "test_resume.py::test_"
DEATHS = "survival/test_deaths.py::test_"
KILLS = "survival/test_kills_survived.py::test_"
COMPILED = "diffusion/test_compiled.py::test_"
TILES = "diffusion/test_tiles.py::test_"
INPAINT = "diffusion/test_inpaint.py::test_"

# file of src/flawsmith -> guarding test -> (the fault, old text, new text)
# fmt: off
MUTATIONS = {
    "datasets/lock.py": {
        DEATHS + "the_second_of_two_is_told_who_holds_the_folder": [
            ("the lock names another process", '{"pid": os.getpid(),', '{"pid": 1 + os.getpid(),'),
            ("a lock does not lock", "fcntl.LOCK_EX | fcntl.LOCK_NB", "fcntl.LOCK_SH | fcntl.LOCK_NB")],
    },
    "datasets/writer.py": {
        KILLS + "a_killed_command_run_again_has_the_bytes_of_a_whole_one": [
            ("generate.json is begun beside itself", "pretty(self.description), self.out / PARTIAL)",
             "pretty(self.description))")],
        RESUME + "old_lines_count_by_the_sizes_of_their_files": [
            ("sizes of old files are not asked", "elif size != line", "elif size is None and line"),
            ("an empty prompt is whole", 'return bool(self._size(line["prompt"]))',
             'return self._size(line["prompt"]) is not None')],
    },
    "errors.py": {
        DEATHS + "want_of_memory_is_known_in_every_librarys_words": [
            ("want of memory behind another error is not seen", "return error.__cause__ is not None and",
             "return False and")],
    },
    "methods/calls.py": {
        "quality/test_gate.py::test_what_is_foreseen_is_not_painted_and_the_others_keep_their_places": [
            ("what cannot pass is painted", "strict=True) if known is None]", "strict=True)]")],
    },
    "generation/gating.py": {
        "quality/test_gated_runs.py::test_exemplars_that_cannot_pass_are_not_imitated_and_that_is_said": [
            ("exemplars that cannot pass are imitated", "return carried and gate", "return True or gate")],
    },
    "generation/attempts.py": {
        COMBINED + "an_image_that_lacks_a_defect_is_refused": [
            ("a later defect may lie on an earlier one", "sample = _off_others(sample, taken)", "pass"),
            ("an image may lack one of its types", "done[place] = _lacking(done[place], more)", "pass")],
        COMBINED + "later_defects_are_painted_on_the_image_with_the_earlier_ones": [
            ("later defects do not see earlier ones", "[done[place].sample for place in places])",
             "[replace(done[place].sample, image=done[place].request.normal.image) for place in places])")],
    },
    "datasets/mvtec_ad.py": {
        COMBINED + "every_format_names_each_defect_by_its_own_type": [
            ("types of single defects are not read", "marked.get(image.stem) or ", "")],
    },
    "masks/growth.py": {
        GROWTH + "what_is_unknown_follows_the_closed_form_of_students_t": [
            ("the mean is taken for known", "freedom * (1 + 1 / count)", "freedom"),
            ("what is seen already is drawn again", "max(0.0, predicted - middle.var())", "max(0.0, predicted)")],
        GROWTH + "drawn_factors_have_students_quantiles_around_the_upward_middle": [
            ("the middle is the real ones'", "freedom, 2) + UPWARD", "freedom, 2)"),
            ("tails of a normal", ".standard_t(self.freedom, 2)", ".standard_normal(2)")],
        GROWTH + "small_defects_grow_and_large_ones_do_not": [
            ("a large defect grows", "max(1.0, WIDEST / own)", "growth.side"),
            ("a large real one is made smaller", "max(1.0, WIDEST / own)", "WIDEST / own")],
        GROWTH + "a_line_grows_along_itself_and_only_where_it_gets_a_new_shape": [
            ("a line's length gains as its side", "growth.side**2)", "growth.side)"),
            ("a line may be any times as long", ", LARGEST[0])", ", 99.0)")],
        GROWTH + "what_shows_the_background_or_is_black_and_white_keeps_its_contrast": [
            ("the background behind a bite is made darker", "0.0 if fixed or 0 in contrasts", "0.0 if 0 in contrasts")],
    },
    "masks/rims.py": {
        RIMS + "the_rim_is_the_side_that_meets_the_edge_and_looks_out": [
            ("the way out points inwards", "out = -np.array(", "out = np.array("),
            ("the rim is a corner of its side",
             "int(np.argmin(np.hypot(rows - rows.mean(), columns - columns.mean())))", "0")],
        RIMS + "what_lies_clear_of_the_edge_has_no_rim": [
            ("what lies clear of the edge is moved there", "* ground.step > TOUCHES + ground.step", "< 0")],
        RIMS + "poses_move_along_their_own_way_out_until_the_edge": [
            ("what is turned goes the old way", "out = (linear @ self.outward) / scales[:, None]",
             "out = np.repeat(self.outward[None], len(centres), axis=0)"),
            ("the last point inside is taken for the edge", "steps[1:][nearest]", "steps[:-1][nearest] - 2")],
    },
    "masks/poses.py": {
        "test_rims.py::test_a_defect_that_would_shrink_to_nothing_is_drawn_as_small_as_can_be_seen": [
            ("tiny defects find no place", "if attempt == ATTEMPTS - 1:", "if False:")],
    },
    "masks/fitting.py": {
        RIMS + "a_crack_from_the_edge_starts_at_an_edge_of_another_surface_and_one_inside_does_not": [
            ("rims go anywhere", "if rim is None:", "if True:")],
        RIMS + "a_region_inside_the_product_has_no_edge_of_its_own": [
            ("a region's border is taken for an edge", "ground if rim is None or image is None else",
             "ground if True else")],
    },
    "masks/structure.py": {
        STRUCTURE + "a_cut_lead_is_structure_and_a_chip_in_the_plain_case_is_not": [
            ("edges anywhere make structure", "float(np.mean(strength)) >= EDGES", "True")],
        STRUCTURE + "a_large_defect_is_carried_whole_and_a_small_one_of_its_type_is_not": [
            ("large defects get new shapes", "side_of(exemplar) >= LARGE", "side_of(exemplar) >= 1"),
            ("a family that was asked for is another one", 'family == "varied" and not asked and', "True and"),
            ("what is carried whole grows", 'if exemplar is None or family == "whole"', "if exemplar is None")],
        GROWTH + "a_line_grows_along_itself_and_only_where_it_gets_a_new_shape": [
            ("a crack grows wider", "along(growth) if family", "growth if family"),
            ("pixels of a crack are stretched", 'if family == "varied" and is_line(', "if is_line(")],
        STRUCTURE + "parts_that_lie_anyhow_and_even_surfaces_tell_nothing": [
            ("nobody asks whether images are aligned", "float(np.mean(alike)) >= ALIGNED", "True")],
    },
    "generation/loading.py": {
        RAY + "another_machine_knows_files_by_their_content": [
            ("another machine is not told what a file holds", "{path: (self.sha(path), None) for",
             '{path: ("", None) for')],
        DEATHS + "a_source_image_that_goes_or_changes_mid_run_stops_it_and_put_back_it_resumes": [
            ("an image may change while it is painted on", "if not sha or seen != now:", "if not sha:")],
    },
    "generation/run.py": {
        DEATHS + "a_source_image_that_changed_between_two_runs_is_refused_and_a_touched_one_is_not": [
            ("an image may change between two runs", 'loader.expect(painted_on, line["normal"]["sha"])', "pass")],
    },
    "training/support.py": {
        DEATHS + "good_photographs_that_changed_are_no_longer_the_stopped_fit": [
            ("a fit goes on with other photographs", "images.array_sha(sample.image) for sample", '"" for sample')],
    },
    "evaluation/results.py": {
        "evaluation/test_results.py::test_a_ledger_is_redone_from_the_first_line_that_holds_no_values": [
            ("a ledger's values may be anything", 'as_values(line["result"]["values"])', 'line["result"]["values"]')],
    },
    "diffusion/compiled.py": {
        COMPILED + "adapters_are_followed_merged_or_not": [
            ("one compiled network for all adapters", "key = (half, active_adapters(self.unet), ", "key = (half, ")],
        COMPILED + "the_second_attention_and_its_lambda_are_in_the_graph": [
            ("one compiled network for every lambda", "self._weights(), *(tuple", "*(tuple"),
            ("the second attention is not compiled", "if semantic is None else (context, semantic)", "")],
        COMPILED + "in_half_precision_company_changes_nothing": [
            ("windows beyond the fixed number are lost", "range(0, count, size)", "range(0, size, size)"),
            ("the last windows are not filled up", ".clamp(max=count - 1)", ".clamp(max=0)")],
        COMPILED + "what_a_graph_has_no_place_for_is_painted_by_torch": [
            ("the manifest names torch whatever painted", "if running is None else", "if True else")],
    },
    "methods/anomalyxfusion/dif_fusion.py": {
        XF + "film_re_tunes_each_group_by_its_own_gamma_and_beta": [
            ("FiLM's gamma is dropped", "return x * (1 + gamma) + beta", "return x + beta"),
            ("FiLM's beta is dropped", "return x * (1 + gamma) + beta", "return x * (1 + gamma)"),
            ("one FiLM group for all", "v[:, i : i + 1].expand", "v[:, 0:1].expand")],
        XF + "concat_adds_what_the_mlp_says_of_token_and_step": [
            ("concat forgets X itself", "return x + self.mlp(", "return self.mlp(")],
        XF + "a_step_is_cosines_and_sines_of_falling_frequency": [
            ("frequencies of the step", "-math.log(10_000)", "-math.log(1_000)")],
    },
    "methods/anomalyxfusion/in_fusion.py": {
        XF + "in_fusion_is_one_pre_norm_block_over_marked_groups": [
            ("MIF's attention has no residual", "u = e + self.attention(", "u = self.attention("),
            ("MIF's MLP has no residual", "return u + self.mlp(", "return self.mlp("),
            ("MIF's groups are unmarked", "e = tokens + torch.cat([g", "e = tokens + torch.cat([0 * g"),
            ("MIF's attention is not normed before", "n = self.norm_attention(e)", "n = e")],
    },
    "methods/anomalyxfusion/location.py": {
        XF + "the_location_map_is_minus_one_and_one_and_keeps_every_touched_cell": [
            ("location map in [0, 1]", "return 2 * pool_mask(mask.float(), side) - 1",
             "return pool_mask(mask.float(), side)"),
            ("location map averaged, not max-pooled", "2 * pool_mask(mask.float(), side)",
             "2 * nn.functional.adaptive_avg_pool2d(mask.float(), side)")],
        XF + "each_location_token_pools_the_map_by_its_own_attention": [
            ("location cells do not know their place", ".flatten(2) + self.place", ".flatten(2)"),
            ("location attention is not scaled", " / cells.shape[1] ** 0.5)", ")")],
        XF + "the_published_location_encoder_merges_a_pyramid_and_has_four_heads": [
            ("pyramid without the finer maps", " + lateral(finer)", "")],
    },
    "methods/anomalyxfusion/tokens.py": {
        XF + "semantic_tokens_are_one_projection_of_the_unit_feature": [
            ("unit length of features dropped", "nn.functional.normalize(feature.detach().float(), dim=-1, eps=1e-6)",
             "feature.detach().float()")],
        XF + "texture_tokens_are_start_plus_projected_feature_plus_table": [
            ("texture without its start", "rows.append(self.start + projected", "rows.append(projected"),
            ("texture without its feature", "self.start + projected + ", "self.start + "),
            ("one learned texture for all names", "+ self.table[index])", "+ self.table[0])")],
    },
    "methods/anomalyxfusion/features.py": {
        XF + "clip_features_are_the_stock_models_of_caption_and_masked_patch": [
            ("CLIP sees the whole image", "tensors.normalise(image, mean, std) * mask",
             "tensors.normalise(image, mean, std)")],
    },
    "methods/anomalyxfusion/reweighting.py": {
        XF + "weights_are_clamped_shares_of_a_softmax_inside_the_mask": [
            ("re-weighting is not clamped", "share.clamp(1.0, STRONGEST)", "share")],
        XF + "reweighting_multiplies_the_logits_of_the_inserted_tokens_only": [
            ("re-weighting of all tokens", "factor[..., first:last] =", "factor[..., :] =")],
    },
    "methods/anomalyxfusion/synthesizer.py": {
        XF_SEEN + "training_sees_the_tokens_of_its_own_step_and_nulls_where_they_are_dropped": [
            ("DDF's step fixed in training", "self.insert(batch.captions, x, dropped, templates), t)",
             "self.insert(batch.captions, x, dropped, templates), 0 * t)"),
            ("dropped rows keep their tokens", "x = torch.where(dropped[:, None, None], self.null().to(x.dtype), x)",
             "x = x + 0")],
        XF_SEEN + "every_step_of_sampling_sees_words_place_and_looks_tuned_to_that_step": [
            ("mask location ignored in sampling", "self.fuse(captions, names, masks), none)",
             "self.fuse(captions, names, torch.ones_like(masks)), none)"),
            ("caption ignored in sampling", "captions = [r.caption for r in requests]",
             'captions = ["" for r in requests]'),
            ("semantic tokens without the caption", "self.features.text(captions)",
             'self.features.text([""] * len(captions))'),
            ("MIF is left out", "return e if self.in_fusion is None else self.in_fusion(e)", "return e")],
        XF_SEEN + "with_the_template_the_caption_speaks_through_the_semantic_tokens_only": [
            ("always the first prompt template", "PROMPTS[step % len(PROMPTS)]", "PROMPTS[0]")],
    },
    "methods/diffusion/painting.py": {
        TILES + "no_window_is_computed_in_which_nothing_is_left_to_paint": [
            ("windows that are painted already are painted again", "self._hole(c, turn).any()", "True")],
        INPAINT + "what_begins_from_real_texture_follows_real_defects_as_analogy_does": [
            ("what is carried whole is painted over", "request.whole and begins_real(request, chosen)", "False")],
        XF_SEEN + "every_step_of_sampling_sees_words_place_and_looks_tuned_to_that_step": [
            ("DDF's step fixed in sampling", "lambda t: self.condition(prepared, t),",
             "lambda t: self.condition(prepared, 0 * t),")],
    },
    "methods/diffusion/synthesizer.py": {
        INPAINT + "what_begins_from_real_texture_follows_real_defects_as_analogy_does": [
            ("contrast grows from noise, too", "if (options or self.options).follows else None", "")],
    },
    "methods/anomalycontrol/enhanced_attention.py": {
        AC + "asea_is_adam_on_the_energy_from_zero_and_reads_the_last_guidance": [
            ("ASEA's energy is not squared", "energy = (1 - attention_share(read(e_g)[1], cells, prefix)).square()",
             "energy = 1 - attention_share(read(e_g)[1], cells, prefix)"),
            ("ASEA reads before the last update", "states, maps = read(e_g)", "states, maps = read(0 * e_g)"),
            ("ASEA stops an update early", "for _ in range(updates):", "for _ in range(updates - 1):"),
            ("ASEA by plain gradient", "torch.optim.Adam([e_g], lr=rate)", "torch.optim.SGD([e_g], lr=rate)")],
        AC + "the_share_is_taken_over_layers_heads_and_queries": [
            ("ASEA's share is not divided by the whole", "(a * cells).sum(1) / a.sum(1)", "(a * cells).sum(1)")],
        AC + "a_cell_is_in_the_mask_if_any_of_its_pixels_is": [
            ("ASEA's mask averaged, not max-pooled", "pool_mask(mask.float(), grid)",
             "torch.nn.functional.adaptive_avg_pool2d(mask.float(), grid)")],
    },
    "methods/anomalycontrol/adapter.py": {
        AC + "the_projection_is_two_linear_layers_of_the_mean_state_and_a_norm": [
            ("one query's state for the mean", "feature = states.mean(1)", "feature = states[:, 0]"),
            ("projection without its norm", "return self.norm(self.proj(self.entry(feature))",
             "return (self.proj(self.entry(feature))")],
        AC + "the_resampler_is_queries_that_attend_to_the_normed_states": [
            ("resampler without a residual", "x = asked + self.attend(", "x = self.attend(")],
    },
    "methods/anomalycontrol/synthesizer.py": {
        AC + "lambda_weighs_the_mean_of_the_references": [
            ("only the first of several references", ".mean(0) for found in", "[0] for found in"),
            ("lambda does not fade the context", "share = min(weight, 1.0) * shown", "share = 1.0 * shown"),
            ("lambda does not reach the adapter", "self.projection(states) if self.adapting else None, weight)",
             "self.projection(states) if self.adapting else None, 1.0)"),
            ("no ASEA in sampling", "Asea(options.e_g_updates if options.asea and", "Asea(0 if options.asea and")],
        AC + "a_training_row_is_read_by_its_caption_or_the_template_and_nulled_where_dropped": [
            ("dropped rows keep their reference", "if r is not None and not batch.dropped[i]}", "if r is not None}"),
            ("the template is never trained", "return template(name) if name and step % 2 else",
             "return template(name) if False else")],
    },
    "diffusion/attention.py": {
        ATTENTION + "the_formula_on_one_layer": [
            ("lambda is ignored", "z = z + self.weight * self._attend(", "z = z + self._attend("),
            ("keys for values", "self.to_v_ip(semantic)", "self.to_k_ip(semantic)"),
            ("the adapter reads the words", "self.to_k_ip(semantic).to(query.dtype)", "attn.to_k(semantic)")],
        ATTENTION + "it_starts_as_a_copy_of_the_layers_own_keys_and_values": [
            ("W' does not start as a copy", "new.weight.copy_(weight)", "new.weight.mul_(1)")],
    },
    "training/losses.py": {
        LOSS + "the_batch_loss_is_that_of_the_denoisers_error": [
            ("latent loss ignores the mask", "loss = masked_loss(error, cells,",
             "loss = masked_loss(error, torch.ones_like(cells),"),
            ("latent loss ignores its normalisation", "config.min_area / backbone.factor**2, 0.0, norm)",
             'config.min_area / backbone.factor**2, 0.0, "area")'),
            ("pixel loss ignores its normalisation", "config.min_area, config.colour, norm)",
             'config.min_area, config.colour, "area")'),
            ("noised at another step", "scheduler.add_noise(latents, noise, t)",
             "scheduler.add_noise(latents, noise, t // 2)")],
        LOSS + "the_smallest_area_behind_a_vae_is_in_cells": [
            ("smallest area in pixels, not cells", "config.min_area / backbone.factor**2", "config.min_area")],
        LOSS + "the_papers_loss_is_the_mean_over_all_of_the_masked_square": [
            ("loss of the whole window", "loss = (square * mask).sum(", "loss = square.sum(")],
        LOSS + "the_loss_is_the_mean_square_inside_the_mask_and_a_little_of_the_rest": [
            ("the rest of the window counts the hole too", "outside * (square * (1 - mask)).mean(",
             "outside * square.mean("),
            ("edges of the whole window", "edges * (step * inside).sum(", "edges * step.sum(")],
        LOSS + "an_error_of_the_clean_image_counts_no_more_than_at_the_cap": [
            ("noise weighted as velocity", 'if prediction == "epsilon":', "if not prediction:"),
            ("velocity's weight without its factor", "return (1 + cap) * (1 - signal)", "return (1 - signal)")],
        LOSS + "targets_are_the_noise_or_its_velocity": [
            ("noise asked for velocity", "return scheduler.get_velocity(latents, noise, t)", "return noise")],
        LOSS + "every_part_of_the_schedule_gives_one_step": [
            ("steps drawn without strata", "torch.randperm(count, generator=generator) + torch.rand(",
             "count * torch.rand(")],
        LOSS + "a_methods_own_condition_is_asked_for_the_batch_and_its_steps": [
            ("a method's condition at another step", "given = condition(batch, t)", "given = condition(batch, 0 * t)")],
        LOSS + "alignment_is_one_minus_the_cosine_of_reading_and_words": [
            ("alignment turned round", "(1 - nn.functional.cosine_similarity(",
             "(1 + nn.functional.cosine_similarity(")],
    },
    "methods/diffusion/tiles.py": {
        TILES + "a_window_paints_more_of_a_mask_that_has_surroundings_at_its_flanks": [
            ("thin masks are walked in short pieces", "0.8 if _thickness", "0.6 if _thickness"),
            ("thick masks are walked in long pieces", "/ 4 else 0.6", "/ 4 else 0.8")],
    },
    "methods/diffusion/canvas.py": {
        TILES + "a_walk_paints_every_pixel_of_the_mask_and_no_other": [
            ("a margin at the region's border, too", "start + edge if start else 0", "start + edge")],
        TILES + "a_window_goes_on_from_what_the_one_before_has_painted": [
            ("no margin is left to the next window", "max(4, side // 16)", "0")],
        INPAINT + "painting_begins_from_real_texture_but_where_the_users_words_decide": [
            ("the reference's pixels follow where words decide",
             'if request.caption not in ("", own, request.reference.caption):', "if False:"),
            ("a missing part gets a texture",
             "request.whole or not captions.logical(request.caption or request.defect_type)", "True"),
            ("a misplaced part that is carried whole is painted from noise", "return request.whole or not",
             "return not")],
    },
    "methods/diffusion/finishing.py": {
        TILES + "what_is_coarse_is_the_starts_and_what_is_fine_the_paintings": [
            ("beside the mask is taken for no drift", "/ np.maximum(blurred[1], 1e-3)[..., None]", ""),
            ("everything is the start's", "strength * blurred[0]", "strength * apart")],
        INPAINT + "what_begins_from_real_texture_follows_real_defects_as_analogy_does": [
            ("growth makes nothing stronger", "elif request.contrast != 1:", "elif False:")],
    },
    "diffusion/denoise.py": {
        LOOP + "without_options_it_is_ddim_with_the_condition_of_each_step": [
            ("condition of the first step only", "given = condition(t)", "given = condition(0 * t + 999)"),
            ("DDIM clips the clean latents", '{"clip_sample": False}', '{"clip_sample": True}')],
        LOOP + "guidance_goes_from_the_unconditional_answer_past_the_conditional_one": [
            ("guidance from the conditional answer", "return without + guidance_scale *",
             "return with_ + guidance_scale *"),
            ("guidance turned round", "Conditioning.join(unconditional(t), given)",
             "Conditioning.join(given, unconditional(t))")],
        LOOP + "below_the_floor_of_noise_over_signal_a_step_is_not_guided_and_costs_half": [
            ("all steps are guided", "guidance_scale if guidance_floor == 0 or sigma[step] > guidance_floor else 1.0",
             "guidance_scale"),
            ("the noisy steps go without guidance", "sigma[step] > guidance_floor", "sigma[step] < guidance_floor")],
        LOOP + "fresh_noise_enters_with_ddims_sigma_and_is_each_steps_own": [
            ("eta is ignored", '"eta": min(eta, 1 - 1e-4)', '"eta": 0.0'),
            ("the same fresh noise at every step", "step_noise(i)}", "step_noise(0)}")],
        LOOP + "a_start_is_noised_to_the_first_step_that_is_taken": [
            ("strength is ignored", "round(len(steps) * strength)", "len(steps)"),
            ("a start is not noised", "return steps, _noised(scheduler, start, noise, steps[0])",
             "return steps, start")],
        LOOP + "what_is_known_is_put_back_at_the_next_steps_noise_level": [
            ("known region at this step's noise", "_noised(scheduler, known, noise, steps[i + 1])",
             "_noised(scheduler, known, noise, steps[i])"),
            ("known region not put back", "x = mask * x + (1 - mask) * kept", "x = x + 0 * kept")],
        LOOP + "channels_of_an_inpainting_backbone_come_behind_the_noisy_ones_at_every_step": [
            ("mask and context before the noisy latents", "torch.cat([noisy, extra], 1)",
             "torch.cat([extra, noisy], 1)")],
        LOOP + "noise_is_each_seeds_own_and_standard_normal": [
            ("one noise for all seeds", "int(seed) & (2**63 - 1)", "0")],
        LOOP + "lambda_reaches_every_layer_and_the_tokens_their_branch": [
            ("lambda does not reach the layers", "processor.weight = given.weight", "processor.weight = 1.0")],
    },
    "diffusion/mask_denoiser.py": {
        MASKS + "type_and_caption_reach_every_step_of_a_drawn_mask": [
            ("mask model ignores the caption", "given = self.kind(kinds) + self.said(words)",
             "given = self.kind(kinds)"),
            ("mask model ignores the type", "given = self.kind(kinds) + self.said(words)", "given = self.said(words)")],
        WHOLES + "the_denoiser_sees_every_cell_and_where_it_lies_and_has_no_attention": [
            ("rows for columns", 'indexing="ij"', 'indexing="xy"'),
            ("whole masks with attention", "add_attention=False", "add_attention=True")],
    },
    "diffusion/mask_model.py": {
        MASKS + "a_batch_draws_types_evenly_with_their_own_captions_some_dropped": [
            ("captions are never dropped", "rng.random() >= drop", "rng.random() >= 0")],
        MASKS + "type_and_caption_reach_every_step_of_a_drawn_mask": [
            ("masks drawn without their caption", "self.shape(name, words, fill, rng)",
             "self.shape(name, 0 * words, fill, rng)")],
        MASKS + "real_masks_that_say_the_same_lend_their_place": [
            ("any real mask lends its place", "weight = np.exp(near - near.max())", "weight = np.ones_like(near)")],
        MASKS + "a_shape_with_more_than_a_third_of_a_border_is_drawn_again": [
            ("cut-off shapes are kept", "<= 1 / 3:", "<= 1:")],
        MASKS + "size_area_and_place_are_the_examples": [
            ("masks without their margin", "round(MARGIN * size *", "round(size *")],
        MASKS + "on_a_surface_a_shape_lands_anywhere": [
            ("placed on surfaces as on objects", "if one.aligned else rng.uniform(0, 1, 2)",
             "if True else rng.uniform(0, 1, 2)")],
        WHOLES + "a_copy_is_drawn_again": [
            ("copies are kept", "if found[-1][0] <= COPY:", "if found[-1][0] <= 1:")],
    },
    "diffusion/whole_masks.py": {
        WHOLES + "type_caption_and_share_reach_every_step_of_a_drawn_mask": [
            ("whole masks drawn without their caption", "self.shape(name, told(words, share)",
             "self.shape(name, told(0 * words, share)"),
            ("whole masks drawn without their share", "self.shape(name, told(words, share)",
             "self.shape(name, told(words, 1.0)"),
            ("captions too faint to be heard", "words * words.shape[-1] ** 0.5", "words")],
        WHOLES + "lessons_are_moved_a_little_never_mirrored_and_tell_their_own_share": [
            ("whole masks' captions are never dropped", "rng.random() >= drop", "rng.random() >= 0")],
        WHOLES + "a_mask_is_its_field_laid_into_the_objects_box_with_all_parts": [
            ("laid into the whole photograph", "compose.mask_box(allowed)",
             "compose.mask_box(np.ones_like(allowed))"),
            ("whole masks all of one share", "rng.normal(0, 0.15)", "0")],
    },
    "training/mask_run.py": {
        MASKS + "training_predicts_v_of_noisy_shapes_told_by_type_and_caption": [
            ("mask model learns the noise", "target = prediction_target(masks.scheduler, shapes, noise, t)",
             "target = noise")],
        MASKS + "a_batch_draws_types_evenly_with_their_own_captions_some_dropped": [
            ("all captions are dropped", "masks.lesson(row, rng, settings.drop_caption)",
             "masks.lesson(row, rng, 1.0)")],
        WHOLES + "a_run_keeps_to_one_kind": [
            ("another kind of mask model takes the run over", "if found and found.kind != model:", "if False:")],
    },
    "diffusion/mask_examples.py": {
        MASKS + "an_outline_is_where_its_field_is_and_covers_its_fill_at_every_size": [
            ("closed with an even kernel", "round(side / len(field)) // 2 * 2 + 1",
             "round(side / len(field)) + 1"),
            ("the fill is ignored", "min(0.95, max(fill, 1 / large.size))", "0.5")],
        WHOLES + "a_whole_mask_is_its_distances_in_the_objects_box": [
            ("a whole mask in the units of a shape", "_distances(square, NEAR, WHOLE)",
             "_distances(square, REACH, WHOLE)"),
            ("parts off the object are cut away", "foreground | sample.mask", "foreground")],
        WHOLES + "lessons_are_moved_a_little_never_mirrored_and_tell_their_own_share": [
            ("whole masks are mirrored", "_bent(rng, one.whole, middle", "_bent(rng, one.whole[:, ::-1], middle"),
            ("whole masks stay in place", "rng.normal(0, 0.03 * WHOLE, 2)", "np.zeros(2)"),
            ("a lesson tells the real one's share", "return field, one.share * larger", "return field, one.share")],
    },
    "diffusion/backbone.py": {
        LATENTS + "latents_are_the_vaes_mean_at_unit_scale_and_back": [
            ("latents are not scaled", "return latents * vae.config.scaling_factor", "return latents")],
        LATENTS + "an_inpainting_denoiser_is_given_the_pooled_mask_and_the_image_with_a_grey_hole": [
            ("the hole can be seen", "context = images * (1 - mask) if", "context = images if"),
            ("mask behind the surroundings", "found = [self.encode_mask(mask), self.encode(context)]",
             "found = [self.encode(context), self.encode_mask(mask)]")],
        CLEAN + "a_draft_is_what_it_adds_to_the_smooth_continuation": [
            ("a draft is the image itself", "self.encode((laid - context) * mask)", "self.encode(laid * mask)")],
    },
    "diffusion/compact/reference.py": {
        READER + "queries_and_words_share_attention_and_queries_look_in_every_second_layer": [
            ("the reader ignores e_g", "seen = visual if guidance is None else visual + guidance", "seen = visual"),
            ("the reader ignores the words", "self.from_text(text)", "self.from_text(0 * text)"),
            ("queries look in every layer", "looks=i % 2 == 0", "looks=i % 2 == i % 2"),
            ("absent words are read", "everyone = torch.cat([keep.new_ones(len(keep), count), keep], 1)",
             "everyone = keep.new_ones(len(keep), count + keep.shape[1])")],
        READER + "contrast_is_colour_difference_and_spread_inside_and_around": [
            ("the mask's contrast is its colour", "4 * (inside - outside)", "4 * inside")],
        READER + "the_first_visual_token_is_the_masked_regions_and_the_rest_are_places": [
            ("the first token is the whole window's", "pooled = (x * share)", "pooled = (x + 0 * share)")],
    },
    "diffusion/compact/unet.py": {
        SIDE + "a_step_does_not_depend_on_how_many_threads_compute_it": [
            ("threads read each other's features", "self._features.pop(threading.get_ident())",
             "self._features.popitem()[1]")],
        BACKBONE + "preconditioning_is_the_best_linear_guess": [
            ("gates start half closed", "2 * gates.sigmoid()", "gates.sigmoid()"),
            ("the linear guess is added", "(answer - noise.rsqrt() * guess)", "(answer + noise.rsqrt() * guess)")],
        BACKBONE + "outside_the_hole_v_is_known": [
            ("the network answers outside the hole", "hole * (answer - noise", "(answer - noise")],
    },
    "diffusion/compact/clean.py": {
        CLEAN + "the_denoiser_is_a_small_skip_and_the_network_in_units_of_the_spread": [
            ("the network's scale is 1", "skip * rest + s * out.float()", "skip * rest + out.float()"),
            ("no skip", "skip * rest + s * out.float()", "s * out.float()")],
        CLEAN + "its_input_has_unit_spread_at_every_level": [
            ("the input is as it comes", "torch.cat([rest / total,", "torch.cat([rest,")],
        CLEAN + "errors_are_weighed_as_edm_weighs_them": [
            ("errors are weighed as the clean image's", "error * sigma / torch.maximum(out, FLOOR * s)",
             "error * sigma / s"),
            ("grain counts without bound", "torch.maximum(out, FLOOR * s)", "out")],
        CLEAN + "outside_the_hole_v_is_known": [
            ("the clean denoiser answers outside the hole", "clean = filled + hole * (", "clean = filled + (")],
        CLEAN + "pretraining_leaves_the_pooled_context_out_at_two_of_five_steps": [
            ("the pooled context is always there", "if self.training else None", "if False else None")],
    },
    "methods/diffusion/sketches.py": {
        DRAFTS + "what_is_under_the_mask_is_not_seen": [
            ("a draft shows the hole's own pixels", "bare = np.where(mask[..., None], bare, normal)", "bare = normal")],
    },
    "diffusion/noise_levels.py": {
        LEVELS + "log_sigma_is_noise_over_signal": [
            ("sigma squared", "return 0.5 * ((1 - signal) / signal).log()", "return ((1 - signal) / signal).log()")],
        LEVELS + "training_steps_have_the_promised_shares": [
            ("fewer steps near pure noise", "low = round(1000 * (1 - PURE))", "low = round(1000 * (1 - PURE / 2))")],
    },
    "training/trainer.py": {
        TUNING + "a_fit_stopped_after_any_step_ends_as_if_it_had_not_been": [
            ("the state lacks the best weights",
             'stored |= {f"best|{name}": value for', 'stored |= {f"ema|{name}": value for'),
            ("the state's recent losses are not taken up", '[(a, b) for a, b in numbers["recent"]]', "[]"),
            ("the state's best step is not taken up", 'int(numbers["best_step"])', "0")],
        SIDE + "gradients_of_parts_add_up_whichever_has_some": [
            ("the last part's gradient is all", "parameter.grad.add_(gradient)", "gradient")],
    },
    "training/parallel.py": {
        PARALLEL + "two_processes_fit_as_one_does_and_resume_to_the_same_bytes": [
            ("every process takes all windows",
             "return range(windows * rank // most, windows * (rank + 1) // most)", "return range(windows)"),
            ("gradients stay those of a process", "_together(dist.all_reduce, flat)", "pass"),
            ("all processes write", "return count() == 1 or dist.get_rank() == 0", "return True")],
    },
    "diffusion/side_by_side.py": {
        SIDE + "results_keep_their_order_and_threads_are_given_back": [
            ("parts are computed one after another", "ThreadPoolExecutor(threads, ini", "ThreadPoolExecutor(1, ini"),
            ("torch keeps a part's threads", "torch.set_num_threads(own)", "pass")],
    },
    "diffusion/sentences.py": {
        SIDE + "sentences_are_encoded_by_one_thread_at_a_time": [
            ("several threads encode", "with LOCK:", "if True:")],
    },
    "training/tuning.py": {
        TUNING + "a_fit_stopped_after_any_step_ends_as_if_it_had_not_been": [
            ("the last weights are kept, not the best",
             "chosen = trainer.best or trainer.ema", "chosen = trainer.ema")],
    },
    "datasets/splits.py": {
        SPLITS + "a_fifth_judges_and_every_shot_has_its_turn": [
            ("one shot judges, however many there are", "max(1, round(len(units) / 5))", "1")],
        SPLITS + "the_type_decides_which_shot_beside_the_seed": [
            ("the same shot of every type", "(seed + zlib.crc32(name.encode()))", "seed")],
        SPLITS + "a_part_is_held_out_of_every_type_that_shows_it": [
            ("a type may be left with nothing to learn from",
             "if all(set(others) - held", "if True or all(set(others) - held")],
    },
    "training/model_run.py": {
        FOLDS + "what_is_held_out_teaches_nothing": [
            ("the judge enters the texture entry", "method.extend(real)",
             "method.extend({n: [*real[n], *held_out[n]] for n in real})")],
    },
    "training/fitting.py": {
        FOLDS + "references_of_the_held_out_loss_are_never_the_target": [
            ("the target is its own reference", "FewShotWindows(part.real, (),", "FewShotWindows(part.held_out, (),")],
    },
    "methods/analogy/field.py": {
        ANALOGY_BY_HAND + "patches_in_use_more_often_than_even_are_charged_up_to_four_times": [
            ("one piece of exemplar is as good as many", "self.weights.occurrence * np.clip(", "0 * np.clip("),
            ("the charge has no bound", "np.clip(used / even - 1, 0, 4)", "np.clip(used / even - 1, 0, 99)")],
        ANALOGY_BY_HAND + "the_cost_is_the_gap_plus_the_charge_less_a_quarter_of_the_rebate_per_neighbour": [
            ("continuing a piece is not rebated", "- self.weights.coherence / 4 *", "- 0 *"),
            ("worn patches cost nothing",
             "cost += worn.reshape(-1)[candidate]", "cost += 0 * worn.reshape(-1)[candidate]")],
        ANALOGY_BY_HAND + "a_pixel_is_the_mean_of_what_the_patches_over_it_say": [
            ("all places of a patch are heard alike", "(1 + down * down + right * right) ** sharp", "1.0"),
            ("patches that do not fit are heard alike", "weight = np.exp(-np.clip(field.cost, 0, None) / scale) *",
             "weight = 1.0 *")],
        ANALOGY + "stripes_continue_in_phase": [
            ("the first layer does not look at what is known",
             "2 * ((w * patch) @ whole.T)", "0 * ((w * patch) @ whole.T)")],
    },
    "methods/analogy/guidance.py": {
        ANALOGY_BY_HAND + "guides_are_depth_direction_and_place": [
            ("the border has no direction", "0.6 * light * near * slope", "0 * light * near * slope"),
            ("depth in pixels only", "1.5 * depth / deepest", "0 * depth / deepest")],
        ANALOGY_BY_HAND + "the_gain_is_the_exposure_under_which_colours_meet": [
            ("the exemplar keeps its own light", "return factor * np.clip(tint", "return np.clip(tint")],
    },
    "methods/analogy/synthesizer.py": {
        "methods/test_photometric_match.py::test_light_and_contrast_go_from_the_references_to_the_surroundings": [
            ("analogy's light is always matched", "light = light**match", "light = light**1.0")],
        ANALOGY + "a_crack_is_dark_all_along_its_new_line": [
            ("thin defects are not unrolled", "thin = is_thin(mask) and any(", "thin = False and any(")],
        ANALOGY + "several_exemplars_are_mixed": [
            ("one exemplar only", "[: options.exemplars]]", "[:1]]")],
        ANALOGY_BY_HAND + "the_darkness_of_a_pit_follows_the_shading_of_its_new_surroundings": [
            ("the surroundings' shading is not put back", "* scale * divisor**options.match, here)", "* scale, here)")],
        ANALOGY_BY_HAND + "the_texture_is_mostly_of_another_defect_than_the_shape": [
            ("a defect lends shape and texture", "OWN * (number == 0)", "-OWN * (number == 0)")],
        ANALOGY_BY_HAND + "a_line_is_painted_with_the_texture_of_lines": [
            ("a blob lends a line its texture", "SHAPE * rounder", "0 * rounder")],
        ANALOGY_BY_HAND + "an_exemplar_is_as_large_as_it_will_be_on_a_photograph_of_another_resolution": [
            ("exemplars are compared at their own resolution",
             "larger = _larger(one, request)", "larger = 1")],
    },
    "methods/analogy/strips.py": {
        ANALOGY_BY_HAND + "a_strip_gives_back_every_pixel_where_it_took_it": [
            ("rolled back a pixel aside",
             "row = (across + self.reach)[good]", "row = (across + self.reach + 1)[good]")],
        ANALOGY_BY_HAND + "a_crack_grown_thicker_has_one_dark_core": [
            ("a thicker line keeps its rims", "1.0 if like is None else", "1.0 if True else")],
        ANALOGY_BY_HAND + "a_wide_crack_is_painted_along_its_line": [
            ("only hair cracks are lines", "THIN = 32.0", "THIN = 12.0")],
        ANALOGY_BY_HAND + "a_line_of_another_width_has_its_exemplars_profile_stretched": [
            ("rolled back in rows of a pixel", "(gap * normal).sum(axis=1) / self.step", "(gap * normal).sum(axis=1)")],
    },
    "masks/reshape.py": {
        ANALOGY + "new_shapes_are_new": [
            ("the first shape is new enough", "if overlap(drawn, here) < NEW and", "if True and")],
        ANALOGY + "a_line_gets_longer_at_its_own_width_and_nothing_else_does": [
            ("no line gets longer", "stretch = longer * ", "stretch = "),
            ("what is no line is stretched", "longer = longer if thin else 1.0", "longer = longer * 1.0")],
        ANALOGY + "pieces_of_a_line_are_lines_and_many_spots_are_none": [
            ("many spots are a line", "THIN * math.sqrt(area)", "THIN * math.sqrt(mask.sum())")],
    },
    "masks/homes.py": {
        ANALOGY_BY_HAND + "homes_charge_for_depth_and_for_distance": [
            ("depth costs nothing", "deep = DEPTH_COST * ", "deep = 0 * "),
            ("distance costs nothing", "PLACE_COST * np.minimum(", "0 * np.minimum(")],
        ANALOGY_BY_HAND + "centres_move_to_the_homes_unless_they_are_kept_or_may_be_anywhere": [
            ("homes are not sought", "return np.where(stays[:, None], centres,",
             "return np.where(stays[:, None] | True, centres,")],
    },
    "compose.py": {
        DIALS + "at_severity_keeps_the_change_at_one_half_and_ends_at_the_stated_factors": [
            ("severity 0 is as painted", "(faint, middle, 2 * severity)", "(middle, middle, 2 * severity)"),
            ("severity 1 is as painted", "(middle, STRONG * middle,", "(middle, middle,")],
        GROWTH + "what_stands_out_more_shows_no_negative_of_the_photographs_texture": [
            ("texture appears as a negative", "cv2.medianBlur(normal, LEVEL)[mask]", "normal[mask]"),
            ("a fainter one hides the photograph", "        if gain <= 1:", "        if gain <= 0:"),
            ("what is bright does not gain", "level + gain * (start - level))", "start)")],
        GROWTH + "a_dark_defect_made_stronger_keeps_its_texture": [
            ("a dark defect ends in black", "np.where(start < level, level *", "np.where(False, level *"),
            ("a denser layer gains less in the mean", "low, high = gain, 2 * gain", "low, high = gain, gain"),
            ("a denser layer may be any times as dense", "gain, 2 * gain", "gain, 99 * gain")],
        COMPOSE + "a_window_has_context_times_the_box_around_its_middle": [
            ("windows without surroundings", "round(side * context)", "side"),
            ("squares by the shorter side", "sides = [max(sides)] * 2", "sides = [min(sides)] * 2")],
        COMPOSE + "the_feather_rises_by_the_distance_to_the_edge": [
            ("a feather too steep", "distance / (width + 1)", "distance / width")],
        COMPOSE + "a_blend_is_the_rounded_mean_by_weight": [
            ("a blend rounds down", "np.rint(weight * painted + (1 - weight) * normal)",
             "np.floor(weight * painted + (1 - weight) * normal)")],
        COMPOSE + "the_grain_inside_a_mask_is_that_regions": [
            ("grain six times too large", "/ 0.6745 / 6.0)", "/ 0.6745)"),
            ("grain of the whole window", "seen = response if mask is None else", "seen = response if True else")],
        COMPOSE + "borrowed_grain_is_half_a_window_away_and_cut_at_two_and_a_half_times_the_grain": [
            ("the grain under the mask comes back", "return np.clip(displaced(texture), -limit, limit)",
             "return np.clip(texture, -limit, limit)"),
            ("edges of the other place shine through", "limit = min(2.5 * noise + 0.5, 12.0)", "limit = 99.0")],
        COMPOSE + "change_counts_above_three_times_the_grain_between_four_and_twelve": [
            ("twice the grain is change", "np.clip(3 * noise_level(normal), 4, 12)",
             "np.clip(2 * noise_level(normal), 4, 12)")],
        COMPOSE + "a_change_is_one_channel_above_the_tolerance": [
            ("the tolerance itself is change", "cv2.absdiff(normal, painted)) > tolerance",
             "cv2.absdiff(normal, painted)) >= tolerance")],
        COMPOSE + "every_score_of_a_half_painted_mask": [
            ("nothing is put back", "image = np.where(label[..., None], painted, normal)", "image = painted"),
            ("visibility over the window", "difference[label].mean()", "difference.mean()")],
        COMPOSE + "repairs_close_two_pixels_and_fill_holes_but_never_leave_the_mask": [
            ("labels leave the mask", "label = _filled(closed) & mask", "label = _filled(closed)"),
            ("holes are left open", "label = _filled(closed) & mask",
             "label = closed.astype(bool) & mask"),
            ("gaps are left open", "cv2.morphologyEx(padded, cv2.MORPH_CLOSE, ellipse)[4:-4", "padded[4:-4")],
        COMPOSE + "a_part_below_a_fiftieth_of_the_largest_is_a_speck_too": [
            ("specks beside large parts stay", "(areas >= 0.02 * areas.max())", "(areas > 0)")],
        COMPOSE + "refusals_stand_at_their_limits": [
            ("the share of the mask is no limit", "elif area < min_share * asked:", "elif area < min_share:")],
    },
    "report/measures.py": {
        REPORT + "measures_of_a_square_are_known": [
            ("contrast the other way round", "grey[label].mean() - grey[ring].mean()",
             "grey[ring].mean() - grey[label].mean()")],
        REPORT + "a_defect_is_nearest_to_itself_however_turned": [
            ("no mirror is looked at", "for flip in (False, True):", "for flip in (False, False):")],
    },
    "report/metrics.py": {
        REPORT + "intervals_are_students": [
            ("the s.d. of the sample itself", "np.std(numbers, ddof=1)", "np.std(numbers)")],
    },
    "report/page.py": {
        REPORT + "captions_and_names_cannot_break_out": [
            ("a caption ends the script", '.replace("<", "\\\\u003c")', "")],
    },
    "studio/several.py": {
        STUDIO_MAKING + "several_painted_or_drawn_defects_of_one_image": [
            ("drawn defects overlap", "roi=clear if roi is None else clear & roi", "roi=roi"),
            ("the label forgets the first defect", "mask=whole.mask | more[0].mask", "mask=more[0].mask"),
            ("painted parts are one defect", "if not parts:", "if parts:")],
    },
    "studio/result_routes.py": {
        STUDIO_FITS + "results_that_were_put_beside_show_verdicts_and_plots_in_the_pages_colours": [
            ("a dark page gets light plots", 'if theme == "dark" else {}', 'if theme == "grey" else {}')],
    },
    "studio/store.py": {
        STUDIO_MASKS + "masks_of_other_sizes_and_bombs_are_refused": [
            ("a longer mask is cut off", "or not unpacking.eof ", "")],
        STUDIO_MASKS + "two_tabs_do_not_overwrite_each_other": [
            ("the last one wins", "if revision is not None and revision != now:", "if False:")],
    },
    "studio/security.py": {
        STUDIO_SAFETY + "other_hosts_pages_and_forms_get_nothing": [
            ("any host", 'if headers.get(b"host", "") not in self.hosts:', "if False:"),
            ("a form may change things", "and HEADER not in headers", "and False")],
        STUDIO_SAFETY + "with_a_token_nothing_is_answered_without_it": [
            ("no token is asked for", "if self.token is not None and not self._knows(scope, headers):", "if False:")],
    },
    "studio/app.py": {
        STUDIO_SAFETY + "no_request_breaks_the_server_or_what_it_says_of_itself": [
            ("the description hides refusals", "for status in (400, 401,", "for status in (401,"),
            ("a wrong body is told as a fault of ours", '"utf-8", "replace").decode()}, 422)',
             '"utf-8", "replace").decode()}, 500)')],
    },
    "studio/shared.py": {
        STUDIO_MAKING + "the_mask_of_a_reference_is_painted_pixel_for_pixel_and_imitated": [
            ("the data set's own mask is imitated", "if painted is not None and", "if False and")],
    },
    "studio/jobs.py": {
        STUDIO_WORKERS + "a_worker_that_dies_before_it_takes_a_job_is_told_likewise": [
            ("a dead worker is out of reach", "except BrokenPipeError:", "except KeyError:")],
    },
    "studio/dials.py": {
        STUDIO_MAKING + "dials_of_a_batch_are_those_of_the_command": [
            ("any setting may be named", "if name not in names:", "if False:")],
    },
    "studio/offered.py": {
        STUDIO_SAFETY + "options_that_could_name_a_file_are_not_offered": [
            ("texts are offered", 'if not _is_free_text(field)}', "}")],
    },
    "evaluation/metrics/realism.py": {
        REALISM + "logistic_is_scikit_learns": [
            ("rows weigh the same", "np.ones(n) if weights is None else np.asarray(weights, float)", "np.ones(n)"),
            ("the intercepts are held", "residual.sum(axis=0)[:, None]]", "residual.sum(axis=0)[:, None] * 0]")],
        REALISM + "folds_hold_parts_together_and_are_even": [
            ("a part is spread over folds", "return chosen[place]", "return np.arange(len(place)) % number")],
        REALISM + "a_probe_learns_no_part_by_heart": [
            ("folds by image", "folds(real_parts, made_parts, seed=seed)", "np.arange(len(y)) % FOLDS")],
    },
    "evaluation/metrics/spectrum.py": {
        REALISM + "spectrum_of_equal_sets_is_zero_and_of_doubled_contrast_six_decibels": [
            ("amplitude, not power", "np.abs(np.fft.fft2(grey)) ** 2", "np.abs(np.fft.fft2(grey))")],
        REALISM + "spectrum_of_white_noise_is_its_variance_and_a_wave_stands_in_its_band": [
            ("the taper's energy stays in", " / np.square(taper).sum()", ""),
            ("the finest band last", "+ FLOOR)[::-1])", "+ FLOOR))")],
    },
    "comparison/choice.py": {
        "test_evaluate_compare.py::test_an_arm_takes_of_each_type_the_method_that_validation_likes": [
            ("the worse method of each type", "{kind: max(alone,", "{kind: min(alone,"),
            ("over all seeds one method against itself",
             "whole.scored[shots, method, share].values() for method",
             "whole.scored[shots, one.methods[0], share].values() for method")],
    },
    "evaluation/detectors/loop.py": {
        "evaluation/test_loop.py::test_of_the_looks_the_best_is_kept_of_equals_the_later": [
            ("of equal looks the first is kept", "learnt.found[step] >= best", "learnt.found[step] > best"),
            ("looks over all the steps", "half = steps // 2", "half = 0")],
        "evaluation/test_loop.py::test_a_loss_goes_down_and_every_step_is_averaged_and_told": [
            ("no step is taken", "    optimiser.step()", "    pass")],
    },
    "evaluation/detectors/one_class/neighbours.py": {
        ONE_CLASS + "distances_are_those_of_brute_force": [
            ("neighbours without the weights", "scaled = memory * weights", "scaled = memory")],
        ONE_CLASS + "a_coreset_takes_one_of_each_heap_and_covers_better_than_chance": [
            ("the coreset knows its last row only",
             "torch.minimum(distance, norms - 2 * rows @ last + last @ last)",
             "norms - 2 * rows @ last + last @ last")],
        ONE_CLASS + "tuning_finds_the_planted_channel_and_is_held_by_its_pull": [
            ("weights below zero", "[(0.0, None)] * len(start)", "[(None, None)] * len(start)"),
            ("the sum of the weights is free", "found * (weights.sum() / found.sum())", "found")],
        ONE_CLASS + "a_map_is_a_half_where_a_normal_image_is_in_the_middle": [
            ("the middle is forgotten", "(distance + self.middle)", "(distance + 1)")],
    },
    "evaluation/detectors/frozen.py": {
        FROZEN + "an_image_given_twice_changes_nothing_and_the_share_decides_between_the_kinds": [
            ("the share is turned round", "[1 - share, share]", "[share, 1 - share]")],
    },
    "datasets/levels.py": {
        ANNOTATED + "objects_in_vocs_colours_without_a_palette_are_counted": [
            ("colours are grey levels", "numbered(np.asarray(image.convert(\"RGB\")))",
             "np.asarray(image.convert(\"L\"))")],
    },
    "datasets/voc_classes.py": {
        VOC_CLASSES + "two_objects_of_one_class_are_two_defects_and_travel_as_such": [
            ("objects are not looked for", "if kinds and objects.is_file():", "if False:")],
        VOC_CLASSES + "class_images_are_read_and_recognised": [
            ("numbers count from one", "list(names.values())[value]", "list(names.values())[value - 1]"),
            ("an object has the first class", "called[int(v[c.argmax()])]", "called[kinds[0]]")],
        VOC_CLASSES + "without_a_labelmap_the_colours_are_vocs": [
            ("no matter is a class", "value not in (BACKGROUND, _key(list(levels.colour(VOID))))",
             "value != BACKGROUND")],
    },
    "datasets/exports/one_class.py": {
        ONE_CLASS_DIVISION + "no_defect_trains_and_nothing_leaks": [
            ("defects on photographs that train validate", "chosen.get(normal.image) == \"val\"",
             "chosen.get(normal.image) != \"test\""),
            ("what a generator has seen is tested", "record.image in seen)", "False)"),
            ("parts are torn", "units = dividing.parts(good)", "units = [[record] for record in good]")],
        ONE_CLASS_DIVISION + "images_that_were_painted_on_are_held_out_first": [
            ("any image is held out", "not any(record.image in painted for record in unit)", "0")],
        ONE_CLASS_DIVISION + "a_set_without_a_division_is_divided_by_part": [
            ("defects train", "side[record.image] == \"train\" and not record.is_good", "False")],
    },
    "datasets/regions.py": {
        ANNOTATED + "fill_counts_pixel_centres": [
            ("polygons half a pixel to the right", "(x1 - x0) - 0.5)", "(x1 - x0))"),
            ("polygons overlap by adding, not by turns", "np.cumsum(crossed, axis=1) % 2",
             "np.cumsum(crossed, axis=1)")],
        ANNOTATED + "compressed_run_lengths_of_cocos_own_tools": [
            ("runs are no differences", "runs[-2] if len(runs) > 2 else 0", "0")],
    },
    "datasets/mvtec_loco.py": {
        LOCO + "saturation_is_read_and_every_file_is_a_defect_of_its_own": [
            ("every defect saturates by its pixels", "entry.saturation_threshold, entry.relative_saturation,",
             "entry.saturation_threshold, False,"),
            ("the table is not read", "if not path.is_file():", "if path.is_file():")],
        LOCO + "a_table_that_cannot_be_meant_is_refused_by_file_and_entry": [
            ("a level twice passes", "if entry.pixel_value in found:", "if False:")],
    },
    "datasets/exports/mvtec.py": {
        COMBINED + "every_format_names_each_defect_by_its_own_type": [
            ("MVTec's layout loses the types", "self._mark(item, f", "str(f")],
        LOCO + "an_export_keeps_levels_files_and_the_table": [
            ("masks lose their levels", "images.brightest(images.read_image(mask))", "part"),
            ("no table", "            if known:\n", "            if not known:\n")],
        LOCO + "two_sets_that_score_a_level_differently_are_not_joined": [
            ("the first table wins", "if known.setdefault(one.level, one) != one:",
             "if known.setdefault(one.level, one) is None:")],
    },
    "evaluation/detectors/saturated.py": {
        LOCO + "a_few_pixels_find_a_defect_that_may_be_marked_anywhere": [
            ("thresholds are not scaled", "enough * float(small.sum()) / float(region.sum())", "enough"),
            ("good images do not count", "sum(tallies.values(), good).aupro",
             "sum(tallies.values(), scores.empty()).aupro")],
    },
    "datasets/exports/outlines.py": {
        EXPORTS + "outlines_give_exactly_the_same_pixels_back": [
            ("outlines half a pixel off", "contour[:-1, ::-1] - 0.5", "contour[:-1, ::-1] - 1.0"),
            ("holes are filled", "for ring in rings[1:]:", "for ring in rings[1:1]:")],
    },
    "datasets/exports/dividing.py": {
        EXPORT_RUNS + "any_shares_leave_a_part_of_every_type_to_train": [
            ("a part on several sides", "first = find(f\"file {image}\")\n        for link in own:",
             "first = find(f\"file {image}\")\n        for link in ():"),
            ("no part is left to train", "left[other] < 2", "left[other] < 1")],
    },
    "datasets/exports/shards.py": {
        STORES + "the_index_tells_every_shard_and_image": [
            ("every shard begins at the first image", '"first": _images(split.listed)', '"first": 0')],
        STORES + "damaged_shards_are_made_again": [
            ("sizes are not compared", 'if sound and self.place.size(entry["shard"]) == entry["bytes"]', "if sound"),
            ("the last one's bytes are not compared", 'hashlib.sha256(last).hexdigest() != split.listed[-1]["sha256"]',
             "False")],
    },
    "datasets/exports/places.py": {
        STORES + "what_a_driver_says_is_told": [
            ("a password is repeated", 'said = _PASSWORD.sub(r"\\1@", ', "said = str(")],
        STORES + "what_a_store_cannot_take_is_refused": [
            ("other files are no reason", "elif self._holds():", "elif False:")],
    },
    "datasets/exports/sources.py": {
        EXPORT_RUNS + "merged_generated_images_train_and_so_does_what_they_were_made_from": [
            ("what was learned from is tested on", "if found.joins_generated and is_seen(record, found))",
             "if False)")],
    },
    "captions/measured.py": {
        CAPTIONING + "colours_are_named_against_the_surroundings": [
            ("a shade is another colour", "< TURN", "< 0"),
            ("lightness alone, not against the surroundings", "lightness - float(outside[0])", "lightness - 30.0")],
        CAPTIONING + "contrast_is_said_only_where_it_can_be_told": [
            ("lively surroundings are no reason to be silent", " and lively < FAINT", "")],
        CAPTIONING + "place_and_number": [
            ("specks are counted", "areas >= SHOWN * areas.max()", "areas >= 0")],
    },
    "datasets/captioning.py": {
        CAPTIONING + "a_stopped_description_keeps_what_it_has": [
            ("edits in the table are overwritten", "kept = {} if out is None or anew", "kept = {} if True")],
    },
    "datasets/tree.py": {
        EXPORT_RUNS + "what_a_run_sets_aside_is_no_part_of_its_images": [
            ("what was refused is read", "child.name not in ASIDE]", "child.name]")],
    },
    "datasets/coco.py": {
        ANNOTATED + "cocos_other_tasks_do_not_describe_the_images_again": [
            ("every task's file counts", "if path.name.startswith(task):", "if False:")],
    },
    "datasets/annotated.py": {
        ANNOTATED + "names_may_go_up_as_long_as_they_stay_inside": [
            ("names go up from the root", 'normpath(f"{self.name(near)}/{name}")', "normpath(name)")],
    },
    "datasets/caption_table.py": {
        CAPTIONING + "damaged_tables_are_refused_by_file_and_line": [
            ("half a sentence is a caption", "if None in row or None in row.values():", "if False:")],
        CAPTIONING + "a_match_by_the_end_needs_to_be_the_only_one": [
            ("any image that ends so", "alike[0] if len(alike) == 1 else None", "alike[0] if alike else None")],
    },
    "datasets/cvat.py": {
        TOOLS + "runs_of_cvat_may_stop_before_the_end": [
            ("what follows the last run is inside", "[0, rest] if len(counts) % 2", "[rest, 0] if len(counts) % 2")],
        TOOLS + "a_turn_by_ninety_degrees_swaps_the_sides": [
            ("boxes turn around the corner", "regions.turn(corners - middle, turned) + middle",
             "regions.turn(corners - corners[0], turned) + corners[0]")],
    },
    "datasets/label_studio.py": {
        TOOLS + "single_values_and_runs_are_unpacked": [
            ("lengths are one too short", "number(widths[number(2)]) + 1", "number(widths[number(2)])")],
        TOOLS + "one_annotation_counts_in_label_studio": [
            ("the first annotator is believed", "kept = truth if len(truth) == 1 else kept", "kept = kept[:1]")],
    },
    "datasets/exposures.py": {
        MEND + "one_defect_under_several_exposures_gets_one_group": [
            ("a place is enough", "> ALIKE:", "> -2.0:")],
        MEND + "groups_of_overlapping_clusters_become_one": [
            ("clusters stand alone", "leader[top(key)] = top(keys[0])", "leader[key] = keys[0]")],
    },
    "datasets/mend.py": {
        MEND + "every_repair_and_nothing_else": [
            ("masks turn the other way", "6: np.rot90(mask, -1)", "6: np.rot90(mask)"),
            ("a trained copy stays", 'ORDER = ("test", "validation")', 'ORDER = ("train", "validation")')],
    },
    "datasets/exports/datumaro.py": {
        EXPORTS + "round_trip_of_pixels_and_words": [
            ("every defect is of the first type", '"label_id": self.numbers[one.label]', '"label_id": 0')],
    },
    "masks/placement.py": {
        DIALS + "a_heat_map_is_where_defects_are": [
            ("the heat map is not asked", "if self.heat is not None:", "if False:")],
    },
    "quality/visibility.py": {
        GATE_CHECKS + "contrast_falls_with_the_grain": [
            ("the texture does not count", "_power(texture, around) + JUST**2", "JUST**2")],
        GATE_CHECKS + "seen_grows_with_the_defect_as_its_side_does": [
            ("the defect's size does not count", "100 * look.share * contrast(look)", "100 * contrast(look)")],
    },
    "quality/looks.py": {
        GATE_CHECKS + "a_grey_window_is_judged_by_lightness_alone_to_the_same_scores": [
            ("what is painted has no colour", "for part in (self.image, self.normal))", "for part in (self.normal,))")],
    },
    "quality/borders.py": {
        GATE_CHECKS + "stripes_that_go_on_are_not_broken_and_displaced_ones_are": [
            ("no line goes on", "strength - goes_on - NOISE", "strength - NOISE")],
        GATE_CHECKS + "a_veil_makes_no_edges_and_a_hole_does": [
            ("all edges are new", "(steps[0] - steps[1]) / max(", "(steps[1] + 1) / max(")],
    },
    "quality/appearance.py": {
        GATE_CHECKS + "a_ghost_is_nearer_to_the_surface_than_to_real_defects": [
            ("the unpainted surface is not asked", "near / (near + away + 1e-6)", "near / (near + near + 1e-6)")],
    },
    "quality/places.py": {
        GATE_CHECKS + "beside_is_the_share_of_the_change_off_the_product": [
            ("on the product is beside it", "change[~look.product[look.label]]", "change[look.product[look.label]]")],
        GATE_CHECKS + "homes_are_asked_only_of_a_product_that_lies_alike": [
            ("poses are not compared", "float((self.copies @ copy_of(photograph)).mean()) >= POSED", "True")],
    },
    "quality/repeats.py": {
        GATE_CHECKS + "a_copy_is_found_turned_mirrored_and_in_other_light": [
            ("mirrored copies are overlooked", "(*turned, *(np.fliplr(one) for one in turned))", "turned")],
        GATE_CHECKS + "prints_know_an_image_they_were_shown": [
            ("prints are forgotten", "self._count += 1", "self._count += 0")],
        GATE_CHECKS + "a_brief_print_misses_nothing_that_is_near_and_forgets_the_oldest": [
            ("brief prints are compared too sharply", "limit = GREY_LIMIT + 1", "limit = GREY_LIMIT / 4"),
            ("the oldest prints stay", "place = bytes.fromhex(text), self._count % RECENT",
             "place = bytes.fromhex(text), min(self._count, RECENT - 1)")],
    },
    "generation/pool.py": {
        JOBS + "an_error_that_cannot_be_sent_or_put_together_is_told_all_the_same": [
            ("an error that cannot be put together ends the run in pickle's words", "found = None", "raise")],
    },
    "generation/actors.py": {
        RAY + "two_actors_write_the_bytes_of_one_process": [
            ("relative paths begin elsewhere", "os.chdir(self.home)", 'os.chdir("/")')],
        RAY + "no_other_machine_reaches_the_ray_that_we_start": [
            ("Ray listens everywhere", "before and not alone", "before")],
        RAY + "as_many_actors_as_have_room": [
            ("GPUs are not counted", 'asked = {"CPU": config.actor_cpus, "GPU": config.actor_gpus}',
             'asked = {"CPU": config.actor_cpus}')],
    },
    "generation/turns.py": {
        MIXTURE + "every_prefix_holds_each_share_to_within_one": [
            ("always the kind that is furthest behind", "(1 - least - behind[kind]) / weights[kind]", "-weights[kind]"),
            ("kinds are dealt before their time", "if by >= least]", "if by > -9]")],
    },
    "generation/misses.py": {
        MISSES + "types_come_by_their_missed_share_and_what_is_found_still_comes": [
            ("more of what was found", "return 1 - self.found", "return self.found"),
            ("what is not missed never comes", "LEAST = 0.1", "LEAST = 0.0001")],
        MISSES + "severity_is_what_makes_found_ones_as_faint_as_missed_ones": [
            ("missed and found change places", "(one.found < 0.5) == missed", "(one.found < 0.5) != missed")],
        MISSES + "results_that_cannot_be_planned_by_are_refused": [
            ("test images are planned by", "if one.sha in tested:", "if False:")],
    },
    "evaluation/misses.py": {
        MISSED + "a_row_says_what_was_found_and_what_the_defect_is_like": [
            ("the threshold itself does not count", "levels[mask] <= level", "levels[mask] < level"),
            ("of all pixels, not the defect's", "(levels[mask] <= level).mean()", "(levels <= level).mean()")],
    },
    "quality/profile.py": {
        REFIT + "two_limits_one_of_them_from_below_are_recovered_together": [
            ("all checks are bad above", "sign = -1 if CHECKS[name].below else 1", "sign = 1")],
        REFIT + "of_noise_little_is_learned": [
            ("kept images cost nothing", "- 10 * np.maximum(0, wrong - WRONGLY)", "+ wrong")],
    },
    "generation/jobs.py": {
        PLAN + "the_first_round_shows_every_photograph_and_reference": [
            ("the first round ends with the shorter walk", "longest = max(", "longest = min(")],
        PLAN + "each_pass_shows_every_photograph_once_and_in_another_order": [
            ("every pass in one order", "default_rng([seed, epoch])", "default_rng([seed, 0])")],
    },
    "generation/tally.py": {
        JOBS + "what_repeats_another_image_is_found_whoever_painted_it": [
            ("repeats are kept", "if one.print is None:", "if True:")],
    },
    "quality/labels.py": {
        GATE_CHECKS + "a_label_loses_what_did_not_change_and_nothing_else": [
            ("unchanged places stay in the label", "label & ~np.concatenate", "label | np.concatenate")],
    },
    "quality/gate.py": {
        GATE + "how_large_is_not_asked_of_what_is_carried_whole_onto_a_product_that_lies_alike": [
            ("large pieces pass on any surface", "request.whole and self.lies_alike(request.normal)", "request.whole"),
            ("large painted shapes pass", "request.whole and self.lies_alike", "self.lies_alike")],
        "quality/test_words_check.py::test_what_is_painted_against_its_words_is_refused_with_the_reason": [
            ("what the model says of the product counts", "- (plain[0] - plain[1]))", "- 0 * (plain[0] - plain[1]))")],
        GATE + "a_dark_hole_passes_and_a_speck_does_not": [
            ("a low score that is worse is taken for better", "score < limit if self.below else", "")],
    },
}
# fmt: on
