"""Names of TRL, axolotl, OpenRLHF and verl, and what they are here: behind the hints and docs/coming_from_trl.md.

What a name is here is an address: `do: prefer`, `objective: dpo`, `rewards: verifier`, `rows_per_step` (an option of
stages), `dpo.beta` (an option of an objective, a reward or a stage), `base` (a key of a recipe). Where it is nothing
here, the remark gives the reason.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass


@dataclass(frozen=True)
class OtherName:
    """A name of another system, the addresses of what it is here, and what else has to be known."""

    system: str
    name: str
    here: tuple[str, ...]
    remark: str

    @property
    def text(self) -> str:
        """The line as a hint.

        >>> OtherName("TRL", "max_grad_norm", ("clip",), "").text
        "TRL's max_grad_norm is 'clip' here"
        """
        translation = f"{self.system}'s {self.name}"
        if not self.here:
            return f"{translation}: {self.remark}"
        return f"{translation} is {' or '.join(repr(word) for word in self.here)} here" + (
            f": {self.remark}" * bool(self.remark)
        )


TABLE = """
# methods
TRL | SFTTrainer sft | do: sft |
TRL | DPOTrainer | do: prefer | objective: {dpo: {beta: 0.1}}
TRL | KTOTrainer | do: prefer | objective: {kto: {beta: 0.1}}
TRL | ORPOTrainer | do: prefer | objective: orpo
TRL | CPOTrainer | do: prefer | objective: cpo, or simpo where its loss_type was simpo
TRL | BCOTrainer | do: prefer | objective: bco
TRL | RewardTrainer reward_trainer | do: fit_reward |
TRL | PRMTrainer | do: fit_reward | objective: prm
TRL | GRPOTrainer | do: reinforce | objective: grpo
TRL | RLOOTrainer | do: reinforce | objective: rloo
TRL | PPOTrainer | do: reinforce | objective: [ppo, {value_clipped: {weight: 0.1}}]
TRL | OnlineDPOTrainer online_dpo | do: reinforce | objective: dpo
TRL | XPOTrainer NashMDTrainer | do: reinforce | not built: nearest is objective: ipo with mixture (IPO-MD)
TRL | GKDTrainer MiniLLMTrainer | | not built: no method distils a larger model's probabilities
axolotl | rl | do: prefer do: reinforce | the objective names the method, objective: {dpo: {beta: 0.1}}
OpenRLHF | train_sft | do: sft |
OpenRLHF | train_dpo | do: prefer | objective: dpo
OpenRLHF | train_rm rm reward_model_training | do: fit_reward |
OpenRLHF | train_ppo train_ppo_ray ppo_ray | do: reinforce | objective: [ppo, {value_clipped: {weight: 0.1}}]
verl | main_ppo adv_estimator algorithm.adv_estimator advantage_estimator | do: reinforce | the objective brings its
    advantages: ppo (gae), grpo, rloo, reinforce_pp
# losses
TRL | loss_type | prefer.objective reinforce.objective | the loss is the objective: sigmoid is dpo, hinge hinge, ipo
    {ipo: {mean: true}}, robust robust_dpo
TRL | sigmoid | objective: dpo |
TRL | sigmoid_norm | objective: dpo_norm |
TRL | robust | objective: robust_dpo |
TRL | exo_pair | objective: exo |
TRL | nca_pair | objective: nca |
TRL | sppo_hard | objective: sppo |
TRL | kto_pair | objective: kto | it reads responses labelled one by one
TRL | bnpo | objective: dapo | clip_high: 0.2 makes it symmetric; every token of the step weighs the same
TRL | aot aot_pair aot_unpaired discopop | | not built; nearest is dpo
axolotl | ipo_loss | objective: ipo |
OpenRLHF | reinforce_baseline reinforce++-baseline | objective: reinforce_pp_baseline |
OpenRLHF | reinforce++ | objective: reinforce_pp |
TRL | label_smoothing | cdpo.label_smoothing robust_dpo.label_smoothing | dpo itself believes every label
TRL | f_divergence_type | f_dpo.divergence | dpo itself is the reverse KL
TRL | rpo_alpha | prefer.objective | a sum, objective: [dpo, {nll: {weight: 0.1}}]
OpenRLHF | nll_loss_coef | prefer.objective | a sum, objective: [dpo, {nll: {weight: 0.1}}]
TRL | cpo_alpha | cpo.weight |
TRL | simpo_gamma | simpo.gamma | TRL's is divided by beta: gamma here is simpo_gamma
TRL | loss_weights | prefer.objective | a weight for each term, [{dpo: {weight: 1.0}}, {nll: {weight: 0.1}}]
TRL | center_rewards_coefficient | bradley_terry.centering |
axolotl | rl_beta dpo_beta kto_beta | dpo.beta kto.beta |
axolotl | orpo_alpha | orpo.weight |
axolotl | kto_desirable_weight | kto.desirable_weight |
axolotl | kto_undesirable_weight | kto.undesirable_weight |
TRL | beta | dpo.beta kto.beta grpo.beta | it stands within the objective
TRL | reference_free | objective: simpo objective: cpo | the objectives that read no reference
# models
TRL | model_name_or_path model_name pretrained_model_name_or_path | base | stages name it as model: $base
axolotl | base_model | base | stages name it as model: $base
OpenRLHF | pretrain actor_model | base | stages name it as model: $base
verl | actor_rollout_ref.model.path | base | stages name it as model: $base
TRL | ref_model ref_model_name_or_path reference_model | prefer.reference | unless given it is the model as the stage
    received it
OpenRLHF | ref_pretrain | prefer.reference | unless given it is the model as the stage received it
TRL | precompute_ref_log_probs | | always so: the reference is read once and kept beside the run; leave it out
TRL | sync_ref_model ref_model_sync_steps | refresh_reference | in rounds of reinforce
TRL | ref_model_mixup_alpha | refresh_reference | not built as a mixture: the reference becomes the policy
OpenRLHF | reward_pretrain critic_pretrain | reinforce.rewards reinforce.value | $stage or a folder
TRL | reward_model reward_model_path | reinforce.rewards | $stage or a folder
TRL | value_model | reinforce.value |
TRL | torch_dtype dtype | precision | weights are trained in fp32
TRL | attn_implementation | | always truing's own tree attention; leave it out
axolotl | flash_attention flash_attn xformers_attention sdp_attention | | always truing's own tree attention; leave
    it out
TRL | use_liger_kernel use_liger_loss | | nothing to switch on: the head runs in chunks anyway; leave it out
TRL | trust_remote_code | | refused: code of a model's folder is never run
TRL | chat_template chat_template_path | | the template in the model's folder is used
axolotl | tokenizer_config tokenizer_type | | the tokenizer in the model's folder is used
TRL | processing_class tokenizer | | the tokenizer in the model's folder is used
# adapters
TRL | peft_config use_peft | lora_rank | with lora_alpha and lora_targets, each an option of the stage
axolotl | adapter | lora_rank | naming a rank asks for LoRA; qlora is not built
TRL | r lora_r | lora_rank |
TRL | target_modules lora_target_modules lora_target_linear | lora_targets | all linear layers but the head unless
    given
TRL | lora_dropout | | not built: truing trains without dropout
TRL | disable_dropout | | always so: truing trains without dropout; leave it out
TRL | modules_to_save use_rslora use_dora lora_task_type task_type bias | | not built
TRL | merge_and_unload merge_lora | lora_merge |
TRL | load_in_4bit load_in_8bit bnb_4bit_quant_type quantization_config | | not built: bases are not quantised;
    precision: bf16 and gradient_checkpointing save memory
# data
TRL | dataset_name train_dataset dataset | sft.data reinforce.prompts | a file, a Hub name or $stage.train
axolotl | datasets train_on_split | sft.data | a file, a Hub name or $stage.train
OpenRLHF | prompt_data | reinforce.prompts |
verl | data.train_files train_files | reinforce.prompts |
TRL | eval_dataset test_split_size | fit_reward.eval do: split | policies are measured by do: evaluate
axolotl | val_set_size test_size | split.eval | of a stage {do: split, data: ...}
verl | data.val_files val_files | monitor_prompts evaluate.prompts |
OpenRLHF | input_key output_key chosen_key rejected_key prompt_key label_key | columns | {prompt: question, chosen:
    better}
TRL | dataset_text_field | columns | {text: body}; do: pretrain learns all of a text
TRL | formatting_func preprocess_function dataset_kwargs | columns | which column has which role; forms are
    recognised (docs/data.md)
TRL | data_collator dataloader_num_workers dataset_num_proc remove_unused_columns | | nothing to set: batches are
    trees, made once
axolotl | dataset_prepared_path | | nothing to set: the token store is kept in the cache
TRL | packing packing_strategy padding_free eval_packing | | always on, and no row sees another; leave it out
axolotl | sample_packing pad_to_sequence_len eval_sample_packing | | always on, and no row sees another; leave it out
OpenRLHF | packing_samples | | always on, and no row sees another; leave it out
TRL | group_by_length | | nothing to set: rows are packed without padding
TRL | max_seq_length max_sequence_length | max_length | prompt and response together
axolotl | sequence_len | max_length | prompt and response together
TRL | max_prompt_length truncation_mode | max_length | of prompt and response; a prompt is never cut, one that leaves
    no room drops its row
OpenRLHF | prompt_max_len max_len | max_length | prompt and response together
verl | data.max_prompt_length | max_length | prompt and response together
TRL | completion_only_loss assistant_only_loss | do: sft | always so: responses are learned; do: pretrain learns
    every token
axolotl | train_on_inputs | do: pretrain | sft learns responses alone, pretrain every token
axolotl | roles_to_train train_on_eos | sft.turns | all assistant turns, or the last; the end token is learned
TRL | shuffle_dataset shuffle data_seed | seed | data are always shuffled, by the seed
# steps
TRL | num_train_epochs | epochs |
axolotl | num_epochs | epochs |
OpenRLHF | max_epochs | epochs epochs_per_round | the second where it is train_ppo's: how often a round is learned from
OpenRLHF | num_episodes | epochs | of reinforce an epoch is every prompt once
verl | trainer.total_epochs total_epochs | epochs | an epoch is every prompt once
TRL | max_steps | steps |
verl | trainer.total_training_steps total_training_steps | steps |
TRL | per_device_train_batch_size | rows_per_step | rows of an update (of reinforce prompts, and not
    responses): this times accumulation times devices
TRL | gradient_accumulation_steps | rows_per_step tokens_per_device | updates are divided by what fits into memory;
    the result is the same
axolotl | micro_batch_size batch_size | rows_per_step | it counts the rows of an update: this times accumulation
    times devices
OpenRLHF | train_batch_size | rows_per_step | prompts, of reinforce
OpenRLHF | micro_train_batch_size micro_rollout_batch_size | tokens_per_device | never changes the result
verl | ppo_micro_batch_size_per_gpu actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu ppo_max_token_len_per_gpu |
    tokens_per_device | never changes the result
TRL | per_device_eval_batch_size | tokens_per_device | never changes the result
TRL | auto_find_batch_size | | nothing to set: tokens_per_device bounds the memory
TRL | lr | learning_rate |
OpenRLHF | actor_learning_rate | learning_rate |
OpenRLHF | critic_learning_rate | value_clipped.weight | policy and value head learn together; a larger weight
    teaches it faster
verl | actor_rollout_ref.actor.optim.lr optim.lr | learning_rate |
TRL | lr_scheduler_type lr_scheduler | schedule | truing show option schedule lists them
TRL | warmup_ratio lr_warmup_steps_ratio | warmup | a share
TRL | warmup_steps | warmup | a share of the steps, and not their number
axolotl | gradient_clipping | max_grad_norm |
verl | grad_clip | max_grad_norm |
TRL | optim adam_beta1 adam_beta2 adam_epsilon | | always AdamW with betas 0.9 and 0.95; leave it out
axolotl | optimizer | | always AdamW; leave it out
TRL | bf16 mixed_precision | precision | precision: bf16
TRL | fp16 tf32 | precision | not built: precision is fp32 or bf16
TRL | activation_checkpointing | gradient_checkpointing |
TRL | neftune_noise_alpha | | not built
TRL | torch_compile | | not built
TRL | deepspeed fsdp fsdp_config accelerator_config ddp_find_unused_parameters | | several processes: python -m
    truing.launch (docs/parallel.md)
OpenRLHF | zero_stage adam_offload | | several processes: python -m truing.launch (docs/parallel.md); nothing is
    moved to the CPU
verl | trainer.n_gpus_per_node n_gpus_per_node trainer.nnodes tensor_model_parallel_size | | several processes:
    python -m truing.launch (docs/parallel.md)
# what is kept and logged
TRL | output_dir | title | runs/TITLE, or truing run --out FOLDER
axolotl | hub_model_id push_to_hub | | not built: truing export writes a folder to upload
OpenRLHF | save_path ckpt_path | title | runs/TITLE, or truing run --out FOLDER
TRL | save_steps save_strategy save_total_limit | checkpoint_every | the last one is kept
axolotl | saves_per_epoch | checkpoint_every | in steps
verl | trainer.save_freq save_freq | checkpoint_every |
TRL | resume_from_checkpoint | | on the command line: truing run RECIPE --resume
TRL | eval_steps eval_strategy evaluation_strategy do_eval | monitor_every | of reinforce, with monitor and
    monitor_prompts; otherwise do: evaluate afterwards
axolotl | evals_per_epoch | monitor_every | of reinforce, with monitor and monitor_prompts; otherwise do: evaluate
    afterwards
verl | trainer.test_freq test_freq | monitor_every |
TRL | load_best_model_at_end early_stopping_patience | patience | of reinforce: evaluations without a better one, after
    which the best is kept
TRL | compute_metrics metric_for_best_model | monitor | rewards that are measured and never learned from; do: evaluate
    measures afterwards
TRL | logging_steps logging_dir report_to run_name log_completions | | nothing to set: metrics.jsonl has every step,
    report.html the curves
axolotl | wandb_project wandb_entity use_wandb | | nothing to set: metrics.jsonl has every step, report.html the
    curves
verl | trainer.logger | | nothing to set: metrics.jsonl has every step, report.html the curves
TRL | callbacks | | not built; patience, stop_at_kl and kl_limit end a stage
TRL | use_cpu no_cuda device_map | | nothing to set: a GPU is used where there is one
# responses of its own
TRL | reward_funcs reward_function | reinforce.rewards | mine.py:name takes TRL's functions as they are
verl | custom_reward_function.path compute_score reward_model.reward_manager | reinforce.rewards | mine.py:name
OpenRLHF | remote_rm_url | reinforce.rewards | mine.py:name, a function of yours that asks the server
TRL | reward_weights | reinforce.rewards | a weight in each, [{mine.py:name: {weight: 0.5}}]
TRL | accuracy_reward | rewards: verifier | answer: math; TRL's own is trl.rewards:accuracy_reward
TRL | think_format_reward | rewards: format | tags: [think, answer]; TRL's own is trl.rewards:think_format_reward
TRL | BestOfNSampler | judge.keep evaluate.best_of | keep: best makes data; truing sample --best-of writes the responses
TRL | judge | reinforce.rewards | of online DPO: the reward that sorts responses
TRL | num_generations num_return_sequences rloo_k | reinforce.group_size sample.samples_per_prompt |
OpenRLHF | n_samples_per_prompt | reinforce.group_size sample.samples_per_prompt |
verl | actor_rollout_ref.rollout.n rollout.n | reinforce.group_size sample.samples_per_prompt |
TRL | max_completion_length response_length | max_new_tokens |
OpenRLHF | generate_max_len | max_new_tokens |
verl | data.max_response_length max_response_length | max_new_tokens |
TRL | num_iterations num_ppo_epochs | epochs_per_round | how often a round is learned from
verl | ppo_epochs actor_rollout_ref.actor.ppo_epochs | epochs_per_round | how often a round is learned from
TRL | num_mini_batches steps_per_generation generation_batch_size | minibatches | updates that a round is divided into
OpenRLHF | rollout_batch_size | minibatches | a round is rows_per_step times minibatches prompts
verl | data.train_batch_size ppo_mini_batch_size actor_rollout_ref.actor.ppo_mini_batch_size | rows_per_step
    minibatches | prompts of an update, and updates of a round
TRL | epsilon cliprange eps_clip | grpo.clip ppo.clip | dapo has clip_low and clip_high
verl | clip_ratio actor_rollout_ref.actor.clip_ratio | grpo.clip ppo.clip |
TRL | epsilon_high | dapo.clip_high |
verl | clip_ratio_low | dapo.clip_low |
verl | clip_ratio_high eps_clip_low_high | dapo.clip_high |
verl | clip_ratio_c dual_clip | ppo.dual_clip |
TRL | cliprange_value value_clip | value_clipped.clip |
TRL | vf_coef | value_clipped.weight | the weight of a term, {value_clipped: {weight: 0.1}}
TRL | kl_coef init_kl_coef kl_penalty | reinforce.beta grpo.beta | in the reward; grpo has one in its loss
OpenRLHF | use_kl_loss kl_loss_coef | kl_k3.weight grpo.beta | a term of the objective, {kl_k3: {weight: 0.01}}
verl | algorithm.kl_ctrl.kl_coef actor_rollout_ref.actor.kl_loss_coef kl_loss_type kl_estimator | reinforce.beta
    grpo.beta | in the reward; in the loss a term kl_k2 or kl_k3
TRL | adap_kl_ctrl target_kl target | kl_target | beta then follows the KL
verl | entropy_coeff entropy_coef entropy_loss_coef | objective: entropy | a term, {entropy: {weight: 0.01}}
TRL | lam lambd cliprange_lambda | gae_lambda | lambda of generalised advantages
verl | algorithm.lam | gae_lambda |
verl | algorithm.gamma | gamma |
TRL | scale_rewards norm_adv_by_std_in_grpo | objective: dr_grpo | grpo divides by the group's deviation, dr_grpo
    does not
TRL | whiten_rewards normalize_reward use_score_scaling use_score_norm | normalise | round or running
OpenRLHF | reward_clip_range score_clip | clip_score | in deviations, with normalise
TRL | missing_eos_penalty non_eos_penalty | truncated_penalty |
TRL | mask_truncated_completions | mask_truncated |
OpenRLHF | overlong_buffer_len reward_model.overlong_buffer overlong_penalty_factor | overlong_buffer | up to 1 of
    reward
OpenRLHF | dynamic_filtering filter_groups | resample |
TRL | importance_sampling_level | objective: gspo | sequence is gspo, token grpo
TRL | use_vllm vllm_mode vllm_gpu_memory_utilization gpu_memory_utilization | | not built as an option: responses are
    sampled in the trainer's process
TRL | vllm_importance_sampling_cap vllm_importance_sampling_correction tis_imp_ratio_cap | sampler_cap |
OpenRLHF | ptx_coef | objective: ptx | a term, {ptx: {weight: 0.1}}, with pretrain
TRL | delta | ppo.dual_clip | a bound on the ratio where the advantage is negative
TRL | top_entropy_quantile | | not built
TRL | environment_factory tools | | not built: a response is one turn
# earlier versions
truing 0.1 | clip | max_grad_norm | clip is now the ratio's alone, an option of objectives
truing 0.1 | smoothing | gae_lambda |
truing 0.1 | passes | epochs_per_round |
truing 0.1 | answers | reinforce.group_size sample.samples_per_prompt evaluate.samples_per_prompt |
truing 0.1 | unfinished_penalty | truncated_penalty |
truing 0.1 | mask_unfinished | mask_truncated |
truing 0.1 | unfinished | judge.truncated |
truing 0.1 | watch | reinforce.monitor |
truing 0.1 | watch_prompts | monitor_prompts |
truing 0.1 | watch_every | monitor_every |
truing 0.1 | late | timeout_score |
truing 0.1 | within | tie_tolerance |
truing 0.1 | found | regex.present format.present |
"""
"""A line each: system | its names | what they are here | remark. `#` begins a section, blanks go on with a line."""

EARLIER = "truing 0.1"
"""The version of truing whose options had other names."""
ADDRESS = re.compile(r"(?:do|objective|rewards): \S+|\S+")


@functools.cache
def sections() -> dict[str, tuple[OtherName, ...]]:
    """The table by its sections, a line for each name."""
    out: dict[str, tuple[OtherName, ...]] = {}
    title = ""
    for line in TABLE.strip().replace("\n    ", " ").splitlines():
        if line.startswith("# "):
            title = line.removeprefix("# ")
            out[title] = ()
            continue
        system, names, here, remark = (cell.strip() for cell in line.split("|", 3))
        out[title] += tuple(OtherName(system, name, tuple(ADDRESS.findall(here)), remark) for name in names.split())
    return out


def called(word: str) -> list[OtherName]:
    """The lines of a name, whatever its case and whether it is written with `-` or `_`.

    >>> [line.here for line in called("--micro-train-batch-size")]
    [('tokens_per_device',)]
    """
    plain = word.lower().strip("-").replace("-", "_")
    every = (line for section in sections().values() for line in section)
    lines = [line for line in every if line.name.lower().replace("-", "_") == plain]
    return sorted(lines, key=lambda line: line.system != EARLIER)


def renamed(word: str) -> bool:
    """True if an earlier version of truing had an option of that name.

    >>> renamed("smoothing"), renamed("gae_lambda")
    (True, False)
    """
    return any(line.system == EARLIER for line in called(word))
