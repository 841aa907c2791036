"""The page of all metrics: those of every table from `splitsem/report/columns.py`, and those of single workflows."""

import re

from scripts.site.options_page import UNITS, cell
from splitsem.report.columns import METRICS

FORMULAS = {
    "compression_ratio": "`raw_bytes / payload_bytes`",
    "edge_s": "`head_s + encode_s + answer_decode_s`",
    "server_s": "`decode_s + tail_s + answer_encode_s`",
    "link_s": "`link_busy_s + link_delay_s`",
    "latency_s": "`edge_s + link_s + server_s + answer_s`",
    "cycle_s": "`max(edge_s + edge_transport_s, link_busy_s, server_s + server_transport_s, answer_busy_s)`",
    "throughput_hz": "`1 / cycle_s`, or `1 / latency_s` where stages do not overlap",
    "energy_j": "`edge_j + link_j + idle_j`",
    "prediction_error": "`|latency_s / measured_latency_s − 1|`, of the medians",
    "throughput_prediction_error": "`|throughput_hz / measured_throughput_hz − 1|`",
    "score_delta": "`score − score_unsplit`",
    "score_val_delta": "`score_val − score_val_unsplit`",
}
WORKFLOWS: dict[str, dict[str, str]] = {
    "Labels": {
        "job": "Number of the job in a sweep, which is its folder's name; empty in the row of a reference.",
        "status error": "`ok`, `failed` or `stopped`, and the line that a failed job ended with.",
        "reference": "What is sent in place of features, e.g. `png`, or `all_on_edge`; empty in the row of a job.",
        "sweep": "The sweep that a row is of, where `workflow=report` joins several.",
        "experiment workflow exit hardware trainer federated references tracking cache_dir resume": "What the "
        "command line chose.",
        "task model codec transport edge server answer answer_at device seed domain": "What was chosen.",
        "strategy partition privacy optimise downlink_codec head_codec gradient_codec": "What was chosen.",
        "split_point": "Name of the cut.",
        "score_name": "`score`, or `agreement` where the targets are the unsplit network's own results.",
        "interval_over": "What `score_ci95` is over: samples, channel seeds.",
        "edge_timing link_timing server_timing coding_timing": "Where the times come from: roofline, lut, measured, "
        "simulated, scaled.",
        "measured_at": "When a reference was evaluated, which may have been for an earlier sweep.",
        "energy_source": "Where the energy comes from.",
    },
    "Of a task": {
        "iou_<class> accuracy_<class>": "The score of one class.",
        "map50": "Mean average precision at an overlap of 0.5, of boxes.",
        "top<n>": "Share of samples whose class is among the n likeliest.",
        "cosine mae_<unit> rmse_<unit>": "Mean similarity, or error, of what the network returns.",
        "mae_<baseline>_bps": "The same error of a simple forecast: persistence, seasonal_naive.",
    },
    "`exit=confidence`": {
        "exit_share_val": "Share of the validation samples that exit.",
        "exit_loss_val": "Score that the exit costs on validation, against the same cut and codec without it.",
        "exit_temperature": "What the exit's logits are divided by; fitted on validation.",
        "exit_score": "Score of the exit on all test samples.",
        "exit_ece exit_ece_uncalibrated": "Expected calibration error of the exit on test, in 15 bins, and before its "
        "temperature.",
        "exit_s": "Seconds of the exit's decision on the edge, as the machine times the head; where times come from a "
        "table, measured here and scaled as coding is. `head_s` contains it.",
        "exit_bytes": "Bytes of the exit's weights on the edge, beyond the head's.",
        "num_exits": "Scored samples that exited and sent no frame (`workflow=offload`). `measured_<stage>_s` is then "
        "the median of those and the median of the others, by their shares.",
    },
    "Of links that damage or lose (`transport=bsc`, `udp`, …)": {
        "num_lost": "Payloads lost, of those sent.",
        "num_resends": "Packets sent again, mean per sample.",
        "score_at_<value>": "Score at one value of the swept range of the link.",
    },
    "`workflow=train`, `codec`, `split_train`": {
        "train_s train_total_s": "Seconds of training: of this run, and with what it built upon.",
        "score_before": "Score before the training through the codec.",
        "num_train": "Training samples.",
        "num_steps": "Steps of the training.",
        "step_s step_edge_s step_link_s step_server_s": "Seconds of a step, and its parts.",
        "gradient_bytes gradient_raw_bytes": "A step's gradients as bytes sent, and as float32.",
        "gradient_codec_s": "Seconds of coding the gradients, a step.",
        "gradient_compression_ratio": "`gradient_raw_bytes / gradient_bytes`.",
        "uplink_bytes downlink_bytes label_bytes": "Bytes up, down and of labels: a step, or a client and round.",
        "uplink_raw_bytes": "The same up as float32.",
        "uplink_compression_ratio": "`uplink_raw_bytes / uplink_bytes`.",
    },
    "`workflow=offload`": {
        "measured_<stage>_s": "Median seconds of a stage by the stopwatch: head, encode, link, ….",
        "measured_<stage>_p<n>_s": "Its n-th percentile.",
        "measured_<stage>_low_s measured_<stage>_high_s": "95 % interval of the median, of edge and latency.",
        "paced_<stage>_s": "Median seconds of a stage in the stream.",
        "frames_sent frames_answered frames_lost frames_late frames_filled fallback_frames": "Frames by their fate: "
        "those that are scored, paced and timed. Probes, and the frames by which both ends settle, are not counted.",
        "missing_share": "Share of the bytes that did not arrive and were filled.",
        "reconnects retries": "How often the connection was made anew, a call tried again.",
        "start_s host": "Seconds to start the server over ssh, and where (`transport.start=ssh`).",
        "policy num_settings settings num_frames num_switches num_changes num_probes share_on_edge bandwidth_bps": " "
        "Of an "
        "adaptive run: how the setting of a frame is chosen, and how often it changed.",
        "num_timed num_paced num_clients": "Frames timed alone, frames in the stream, clients.",
        "num_hosts": "Computers that edge and servers run on, by what each process says of its own; fewer than "
        "there are processes: they share cores, and the predicted pace presumes that they do not.",
    },
    "`workflow=board`": {
        "host start_s sent_bytes": "The board, seconds until it was ready, bytes that it had to be sent.",
        "<stage>_p<n>_s": "n-th percentile of a stage there: read, head, encode, round_trip, queue, server, decode.",
        "payload_bytes first_payload_s rss_bytes": "Bytes a frame, seconds to the first payload, memory at most.",
        "frames_answered fallback_frames reconnects retries": "Frames by their fate, and what the link cost.",
    },
    "`workflow=bundle`": {
        "<form>_bytes": "Size of a file: onnx, int8, float16, pt2, bundle.",
        "score_<form> val_score_<form>": "Score of what that file sends, on test and on validation.",
        "<form>_kept": "1 where the smaller file's score is within `workflow.margin`.",
        "onnx_same_payloads": "Share of the samples whose bytes equal the codec's.",
    },
    "`workflow=points`, `zoo`, `profile`, `domains`, `track`": {
        "num_points num_bottlenecks num_cut num_networks num_exact num_inexact num_with_bottleneck": "Counts.",
        "cut_share": "Share of the networks that could be cut.",
        "cut_s": "Median seconds to cut one.",
        "whole_s": "Seconds of the whole network.",
        "num_domains num_train_least num_train_most num_classes_least": "Domains; samples and classes that they hold.",
        "num_logged num_runs num_jobs num_sweeps": "Runs logged now; runs, jobs and sweeps of the folder.",
        "num_layers sum_ratio": "Layers timed one by one, and their sum as a share of the whole network's time.",
        "peak_bytes": "The most memory that torch's allocator held while a layer ran, weights aside.",
        "server_<metric>": "The same of the server, as it measured itself.",
        "active_w cpu_share energy_from": "Power while a network runs, the share of it that is the processor's, and "
        "where "
        "it comes from.",
    },
    "`workflow=zoo`, a row a network": {
        "network family source": "The network, its kind, and the package that it is of.",
        "input batch": "Shape and type of its inputs, and the batch that it was checked with.",
        "num_params": "Parameters.",
        "smallest_share smallest_at": "The least that crosses at a cut, as a share of the input; and where.",
        "first_bottleneck first_flops_share": "The first cut at which fewer values cross than at the input, and "
        "the share of the operations before it.",
        "cut_cpu_s check_s": "Processor seconds of cutting, and seconds of comparing every cut with the whole network.",
        "is_exact max_diff": "Whether head and tail give what the whole gives, and by how much they differ at most.",
        "reason": "Why it was not cut.",
    },
    "`workflow=measure_link`": {
        "rtt_s rtt_p<n>_s": "Round trip of an empty message: median and n-th percentile.",
        "up_bps down_bps": "Goodput up and down.",
        "loss": "Share of datagrams lost (`transport=udp`).",
        "link_base_s link_s_per_byte": "The line through the transfers: seconds of no byte, and of each byte.",
        "target num_packets num_transfers": "The server, and how many were sent.",
    },
    "`workflow=federated`, `splitfed`": {
        "rounds round_s": "Rounds, and mean seconds of one.",
        "failed_clients clients_refused void_rounds refused_client_<n>": "Clients left out, and rounds that changed "
        "nothing.",
        "codec_s codec_share": "Seconds of coding a round, and their share of it.",
        "head_uplink_bytes head_downlink_bytes": "Bytes of the heads up and down, a client and round.",
    },
    "`workflow=joint`": {
        "accuracy accuracy_<of>": "The score of the choice; of: ci95, delta, val, ref (unsplit, all branches), "
        "fastest, ….",
        "lambda gammas num_units num_branches": "The cut λ, and the branches of each block.",
        "<of>_lambda <of>_t_eff_s <of>_throughput_hz": "The same of baseline, fused, edge_only, server_only, fastest.",
        "gain_over_<of> measured_gain_over_<of>": "`throughput_hz / that baseline's − 1`, predicted and measured.",
        "predicted_t_eff_s measured_t_eff_s": "T_eff = ω · latency + (1 − ω) · cycle.",
        "objective objective_value": "What was minimised, and its value.",
        "epsilon margin slack slack_val feasible feasible_val": "The constraint, the distance kept from it, and "
        "whether it "
        "holds.",
        "predicted_damage": "Loss of score that the table predicts.",
        "optimality_gap": "How far a solver ends above the exact optimum.",
        "solver_s table_s ablation_s": "Seconds of choosing, and of measuring what is chosen from.",
        "link_base_delay_s": "The line through what the link takes for each cut's tensors.",
        "t_eff_prediction_error latency_prediction_error cycle_prediction_error relative_t_eff_prediction_error "
        "<of>_t_eff_prediction_error <of>_latency_prediction_error <of>_cycle_prediction_error": "How far the "
        "prediction is from what `workflow.real=true` measured, as a share of it; relative: of choice to baseline.",
        "measured_<of>_latency_s measured_<of>_throughput_hz measured_<of>_t_eff_s measured_lambda "
        "measured_<of>_lambda": "Measured over the real link; lambda is the fastest of the cuts that were run.",
        "wire_accuracy wire_<of>_accuracy": "The score of the answers that came over the real link.",
        "frames_num_jobs frames_delay_s frames_s_per_byte frames_edge_base_s frames_edge_factor frames_server_base_s "
        "frames_server_factor frames_latency_error frames_cycle_error": "What real frames add to the table: the jobs "
        "that it is fitted on, delay and seconds of a byte, base and factor of each end, and the error of the fit.",
        "paced_edge_s paced_server_s <of>_paced_edge_s <of>_paced_server_s": "Work of each end at the pace of frames.",
        "chain links": "Machines and links of `hardware.chain`; `split_point` and `codec` then name every hop's.",
        "regret regret_low regret_high": "What the choice takes in the sweep of `workflow.against`, over its "
        "best less 1; 95 %.",
        "swept_best num_swept": "The best setting there, and how many there were that keep ε.",
        "hop_<n>_s hop_<n>_busy_s": "Predicted seconds of a further hop of a chain, both ways, and how long a "
        "frame keeps it from the next one (`workflow=offload`).",
        "estimated_loss_val": "Of a chain's choice: the sum of what each hop's codec loses by itself; `accuracy_val` "
        "is scored through all hops.",
        "machine_<n>_s hop_<n>_bytes": "Seconds of each of its machines; mean bytes of each hop on the test split.",
        "num_scored num_rates num_left_out": "Candidates scored, rows of the table, rows left out.",
        "local_head_s local_tail_s": "Seconds of the chosen halves on this machine.",
        "test_payload_bytes": "Mean bytes of the choice's payloads on the test split.",
    },
}
_PLACE = re.compile(r"<\w+>")


def known(name: str) -> bool:
    """Whether the page explains a metric, or a column of ``results.csv``; a setting has a page of its own."""
    if "." in name or "@" in name:
        return True
    return name in METRICS or any(pattern.fullmatch(name) for pattern in _patterns())


def _patterns() -> list[re.Pattern[str]]:
    names = [name for part in WORKFLOWS.values() for names in part for name in names.split()]
    return [re.compile(_PLACE.sub(r"[\\w.+-]+", name)) for name in names]


def _unit(name: str) -> str:
    return next((unit for ending, unit in UNITS.items() if name.endswith(ending)), "–")


def metrics_page() -> str:
    """Markdown: a table for what every table shows, then one a workflow."""
    lines = [
        "# Metrics",
        "",
        "*Made of the source.* This is every metric of `metrics.json` and every column of `results.csv`; a column with "
        "a point in its name, `codec.bit_width`, is a setting. Units are SI and stand in the name. Tables and reports "
        "show them scaled (kB, ms). `<n>` stands for what varies. *What the numbers mean* explains how they are made.",
        "",
        "## In every table",
        "",
        "| metric | meaning | unit | formula |",
        "|---|---|---|---|",
        *(f"| `{n}` | {cell(one.meaning)} | {_unit(n)} | {FORMULAS.get(n, '')} |" for n, one in METRICS.items()),
        "",
    ]
    for heading, part in WORKFLOWS.items():
        lines += [f"## {heading}", "", "| metric | meaning | unit |", "|---|---|---|"]
        for names, meaning in part.items():
            shown = ", ".join(f"`{name}`" for name in names.split())
            units = ", ".join(dict.fromkeys(_unit(name) for name in names.split()))
            lines.append(f"| {shown} | {meaning} | {units} |")
        lines.append("")
    return "\n".join(lines)
