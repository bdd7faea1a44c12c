"""Ways to break the rules, each with the scenario that must notice it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutant:
    """A fault: in the rule of this name `old` becomes `new`, and the scenario must fail."""

    rule: str
    old: str
    new: str
    caught_by: str

    def __str__(self) -> str:
        """The name of the rule, and the fault."""
        return f"{self.rule}: {' '.join(self.old.split())} -> {' '.join(self.new.split()) or 'nothing'}"

    def of(self, rules: str) -> str:
        """Return the rules with the fault."""
        blocks = rules.split("\n      - ")
        heads = (f"alert: {self.rule}\n", f"record: {self.rule}\n")
        found = [place for place, block in enumerate(blocks) if block.startswith(heads) and self.old in block]
        assert found, f"the rule has changed: {self}"
        blocks[found[0]] = blocks[found[0]].replace(self.old, self.new, 1)
        return "\n      - ".join(blocks)


_ACTIVE = "run:progress_active:last6h"
_START = "run:progress_start_time_seconds:last6h"
_IDLE = "run:progress_idle_seconds:last3m"
_HEALTH = "run:progress_health:last3m"
_LIMIT = "run:progress_stall_after_seconds:last3m"
_CHILDREN = "run:progress_children:last3m"
_LEFT = "instance:progress_left:last1h"
_COUNTED = "instance:progress_counted_time_seconds"
_LOST_FOR = "run:progress_lost_seconds"
_OVER = "run:progress_over_seconds"
_ELSEWHERE = "run:progress_child_elsewhere_time_seconds"
_HELD = "run:progress_idle_held_back_seconds"
_UNHEARD = "run:progress_unheard:last3m"
_TROUBLE = "run:progress_trouble_seconds"
_AGAIN = "run:progress_trouble_again_time_seconds"
_TOLD = "run:progress_trouble_seconds:held"
_HEARD, _OUTAGE, _SILENT, _LOST, _GONE = (
    f"run:progress_{what}_time_seconds" for what in ("heard", "outage", "silent", "lost", "gone")
)
_REPORTER_HEARD, _REPORTER_OUTAGE, _REPORTER_SILENT, _REPORTER_LOST = (
    f"instance:progress_{what}_time_seconds" for what in ("heard", "outage", "silent", "lost")
)


def _now(series: str) -> str:
    """Return the query for what a rule recorded in this evaluation."""
    return f"last_over_time({series}[1s])"


_NEWEST = """and (
            run:progress_start_time_seconds:last6h
            == on (deployment_environment_name, job, progress_operation_name, progress_operation_id) group_left ()
            max by (deployment_environment_name, job, progress_operation_name, progress_operation_id) (run:progress_start_time_seconds:last6h)
          )"""
_GUARD = "unless on () collector:progress_blind:last5m"
_ENDED = "name:progress_operation_ended:increase15m"
_IS_ACTIVE = "and (run:progress_active:last6h == 1)"

MUTANTS = (
    # The recorded series
    Mutant(_ACTIVE, "min by", "max by", "ends_in_one_of_two"),
    Mutant(_ACTIVE, "last_over_time(progress_run_active[6h])", "progress_run_active", "killed"),
    Mutant(_ACTIVE, "[6h]", "[3m]", "killed"),
    Mutant(_ACTIVE, "[6h]", "[5h]", "long_lost"),
    Mutant(_ACTIVE, "last_over_time", "max_over_time", "ends"),
    Mutant(_ACTIVE, "instance, ", "", "attempt_killed"),
    Mutant(_START, "[6h]", "[3m]", "killed"),
    Mutant(_START, "last_over_time(progress_run_start_time_seconds[6h])", "progress_run_start_time_seconds", "killed"),
    Mutant(_IDLE, "last_over_time(progress_run_idle_seconds[3m])", "progress_run_idle_seconds", "gap_while_stuck_long"),
    Mutant(_IDLE, "[3m]", "[1m]", "stuck_killed"),
    Mutant(_IDLE, "last_over_time", "max_over_time", "stuck_recovers"),
    Mutant(_IDLE, "max by", "sum by", "doubled"),
    Mutant("run:progress_stall_after_seconds:last3m", "last_over_time(progress_run_stall_after_seconds[4m])", "progress_run_stall_after_seconds", "gap_while_stuck_long"),
    Mutant("run:progress_slow_after_seconds:last3m", "[4m]", "[3m]", "troubled_killed"),
    Mutant("run:progress_slow_after_seconds:last3m", "[3m]", "[1m]", "slow_killed"),
    Mutant(_HEALTH, "== 1", "", "looping"),
    Mutant(_HEALTH, "== 1", "== 0", "looping"),
    Mutant(_HEALTH, "[4m]", "[3m]", "troubled_killed"),
    Mutant(_HEALTH, "last_over_time(progress_run_health[4m])", "progress_run_health", "gap_while_looping"),
    Mutant(_HEALTH, "last_over_time", "max_over_time", "looping"),
    # Troubles
    Mutant(_TROUBLE, _IS_ACTIVE, "", "stuck_ends"),
    Mutant(_TROUBLE, ">=", "<", "stuck_shortly"),
    Mutant(_TROUBLE, f"{_now(_IDLE)}\n            - 30", "(time() - run:progress_start_time_seconds:last6h)\n            - 30", "progressing"),
    Mutant(_TROUBLE, _now(_LIMIT), "300", "stuck_shortly"),
    Mutant(_TROUBLE, 'progress_health="silent"', 'progress_health="waiting"', "stuck_shortly"),
    Mutant(_TROUBLE, ">= 30  # seconds", ">= 0", "child_elsewhere_of_an_impatient_parent"),
    Mutant(_TROUBLE, "- 30  # seconds", "- 0", "stuck_without_a_verdict"),
    Mutant(_TROUBLE, "- 30  # seconds", "- 300", "stuck_without_a_verdict"),
    Mutant(_TROUBLE, '{progress_health="looping"}', "", "progressing"),
    Mutant(_TROUBLE, '"looping"', '"silent"', "looping"),
    Mutant(_TROUBLE, f'"looping"}}[1s])\n          )\n          {_IS_ACTIVE}', '"looping"}[1s])\n          )', "looping_ends"),
    Mutant(_TROUBLE, f"max by (deployment_environment_name, job, instance, progress_operation_name, progress_operation_id) (\n            last_over_time({_HEALTH}", f"max by (progress_operation_id) (\n            last_over_time({_HEALTH}", "looping"),
    Mutant(_TROUBLE, f":last3m[1s])\n            {_IS_ACTIVE}", ":last3m[1s])", "slow_ends"),
    Mutant(_TROUBLE, ":last6h) >=", ":last6h) <", "slow"),
    Mutant(_TROUBLE, '{progress_health="waiting"}', '{progress_health="silent"}', "slow_waits"),
    Mutant(_TROUBLE, "(time() - run:progress_start_time_seconds:last6h)", _IDLE, "slow"),
    Mutant(_TROUBLE, 'last_over_time(run:progress_trouble_seconds{alert="OperationSlow"}[1m])', "(run:progress_idle_seconds:last3m < 0)", "slow_and_waits"),
    Mutant(_TROUBLE, 'last_over_time(run:progress_trouble_seconds{alert="OperationSlow"}[1m])', "run:progress_idle_seconds:last3m", "slow_waits"),
    Mutant(_TROUBLE, "> 0", ">= 0", "progressing"),
    Mutant(_TROUBLE, "> 0", "< 0", "waits_too_long"),
    Mutant(_TROUBLE, f"> 0\n          {_IS_ACTIVE}", "> 0", "waits_too_long"),
    Mutant(_TROUBLE, "last_over_time(progress_run_wait_remaining_seconds[3m])", "progress_run_wait_remaining_seconds", "troubled_in_an_outage"),
    Mutant(_TROUBLE, "last_over_time(progress_run_wait_remaining_seconds", "min_over_time(progress_run_wait_remaining_seconds", "waits_too_long"),
    Mutant(_AGAIN, "unless", "and", "stuck_dithers"),
    Mutant(_AGAIN, "[10s]", "[10m]", "stuck_dithers"),
    Mutant(_AGAIN, "[10m]", "[1h]", "stuck_again_later"),
    Mutant(_AGAIN, "[10m]", "[1m]", "stuck_dithers"),
    Mutant(_TOLD, "last_over_time(run:progress_trouble_seconds:held[1h])", "(run:progress_trouble_seconds:held < 0)", "troubled_killed"),
    Mutant(_TOLD, "and (last_over_time(run:progress_trouble_held_time_seconds[1h]) >= on () group_left () progress:listened_time_seconds)", "", "stuck_killed_recovered"),
    Mutant("run:progress_trouble_held_time_seconds", "time() + 0 * ", "0 * ", "stuck_killed"),
    Mutant("run:progress_trouble_time_seconds", "time() + 0 * ", "0 * ", "parent_stuck_and_restart"),
    Mutant("progress:listened_time_seconds", "last_over_time(progress:listening_time_seconds[6h])", "vector(0)", "stuck_dithers"),
    Mutant(_AGAIN, "< 25  # seconds", "< 5", "stuck_dithers"),
    Mutant(_TOLD, f"{_now(_UNHEARD)} and on ()", f"({_now(_UNHEARD)} < 0) and on ()", "troubled_in_an_outage"),
    Mutant(_TOLD, "< 180  # seconds", "< 5", "troubled_in_an_outage"),
    Mutant(_TOLD, f"or {_now(_GONE)}", "", "stuck_proven"),
    Mutant(_TOLD, f"last_over_time({_UNHEARD}[1s])", "run:progress_active:last6h", "stuck_recovers"),
    Mutant(_TOLD, "[2m]", "[20s]", "stuck_dithers"),
    Mutant(_TOLD, "[2m]", "[5m]", "stuck_dithers"),
    Mutant(_TOLD, "and last_over_time(run:progress_trouble_again_time_seconds[10m])", "", "stuck_again_later"),
    Mutant(_TOLD, "[10m])\n          and on (deployment_environment_name, job, instance, progress_operation_name, progress_operation_id)\n          (run:progress_active:last6h == 1)", "[10m])", "stuck_dithers_often"),
    Mutant("OperationStuck", '"OperationStuck"', '"OperationSlow"', "stuck_recovers"),
    Mutant("OperationLooping", '"OperationLooping"', '"OperationStuck"', "looping"),
    Mutant("OperationLooping", "        labels:\n", "        for: 30s\n        labels:\n", "looping_shortly"),
    Mutant("OperationSlow", '"OperationSlow"', '"OperationStuck"', "slow"),
    Mutant("OperationSlow", "for: 1m", "for: 0s", "slow_shortly"),
    Mutant("OperationOverdueWait", '"OperationOverdueWait"', '"OperationSlow"', "waits_too_long"),
    Mutant("OperationOverdueWait", "        labels:\n", "        for: 30s\n        labels:\n", "waits_a_little_too_long"),
    # Runs that are not heard from
    Mutant(_HEARD, "last_over_time(run:progress_heard_time_seconds[1h]) and run:progress_active:last6h", "run:progress_active:last6h * 0", "killed_in_an_outage"),
    Mutant(_OUTAGE, "time() + 0 *", "0 *", "killed_in_an_outage"),
    Mutant(_OUTAGE, "- 90  # seconds", "- 900", "killed_before_an_outage"),
    Mutant(_OUTAGE, "- collector:progress_outage", "", "killed"),
    Mutant(_OUTAGE, "<= on () group_left () collector:progress_start_time_seconds", "< on () group_left () (0 * collector:progress_start_time_seconds)", "ends_before_a_restart"),
    Mutant(_OUTAGE, "<= on () group_left () collector:progress_start_time_seconds", "> on () group_left () (0 * collector:progress_start_time_seconds)", "killed_around_a_restart"),
    Mutant(_OUTAGE, "collector:progress_start_time_seconds\n              - 60", "collector:progress_start_time_seconds\n              - 90", "killed_around_a_restart"),
    Mutant("collector:progress_start_time_seconds", "timestamp(otel", "0 * timestamp(otel", "ends_before_a_restart"),
    Mutant(_OUTAGE, "last_over_time(run:progress_outage_time_seconds[1h]) > run:progress_heard_time_seconds", "last_over_time(run:progress_outage_time_seconds[1h]) < run:progress_heard_time_seconds", "ends_in_an_outage"),
    Mutant(_OUTAGE, "last_over_time(run:progress_outage_time_seconds[1h]) > run:progress_heard_time_seconds", "last_over_time(run:progress_outage_time_seconds[1h])", "ends_in_an_outage"),
    Mutant(_UNHEARD, "(run:progress_active:last6h == 1)", "run:progress_active:last6h", "exits"),
    Mutant(_UNHEARD, _NEWEST, "", "attempt_ends_elsewhere"),
    Mutant(_UNHEARD, "max by (deployment_environment_name, job, progress_operation_name", "min by (deployment_environment_name, job, progress_operation_name", "attempt_killed"),
    Mutant(_UNHEARD, "present_over_time(progress_run_active[3m])", "progress_run_active", "gaps"),
    Mutant(_UNHEARD, "[3m]", "[10m]", "killed"),
    Mutant(_UNHEARD, "unless on (deployment_environment_name, job, progress_operation_name, progress_operation_id)", "unless on (deployment_environment_name, job)", "one_of_two_killed"),
    Mutant(_SILENT, "(last_over_time(run:progress_silent_time_seconds[1m]) or time() + 0 * run:progress_active:last6h)", "(time() + 0 * run:progress_active:last6h)", "killed"),
    Mutant(_SILENT, "< 60  # seconds", "< 0", "clock_far_behind"),
    Mutant("run:progress_arrived_time_seconds", "> last_over_time(run:progress_sample_time_seconds[1h])", ">= last_over_time(run:progress_sample_time_seconds[1h])", "clock_far_behind"),
    Mutant("run:progress_sample_time_seconds", "timestamp(progress_run_active)", "0 * progress_run_active", "clock_far_behind"),
    Mutant(_LOST, _GUARD, "", "outage"),
    Mutant(_LOST, _GUARD, "and on () (collector:progress_works:count > 0)", "unwatched"),
    Mutant(_LOST, "collector:progress_blind:last5m", "(collector:progress_works:count == 0)", "late_reconnect"),
    Mutant(_LOST, ">= 60  # seconds", ">= 0", "killed"),
    Mutant(_LOST, ">= 60  # seconds", ">= 600", "killed"),
    Mutant(_LOST, "last_over_time(run:progress_lost_time_seconds[1h]) > run:progress_heard_time_seconds", "last_over_time(run:progress_lost_time_seconds[1h]) < run:progress_heard_time_seconds", "restart_while_lost"),
    Mutant(_LOST, "last_over_time(run:progress_lost_time_seconds[1h]) > run:progress_heard_time_seconds", "last_over_time(run:progress_lost_time_seconds[1h])", "lost_again_in_an_outage"),
    Mutant(_GONE, "[6h]", "[1m]", "proven"),
    Mutant(_GONE, """unless (
            max by (deployment_environment_name, job, instance, progress_operation_name, progress_operation_id) (
              last_over_time(progress_run_lost_seconds[6h])
            )
            < on""", """unless (
            max by (deployment_environment_name, job, instance, progress_operation_name, progress_operation_id) (
              last_over_time(progress_run_lost_seconds[6h])
            )
            > on""", "proven"),
    Mutant(_GONE, """unless (
            run:progress_start_time_seconds:last6h
            < on (deployment_environment_name, job, progress_operation_name, progress_operation_id) group_left ()
            max by (deployment_environment_name, job, progress_operation_name, progress_operation_id) (run:progress_start_time_seconds:last6h)
          )""", "", "proven_resumed_behind"),
    Mutant(_REPORTER_HEARD, "last_over_time(instance:progress_heard_time_seconds[1h]) and instance:progress_in_flight:last1h", "0 * instance:progress_in_flight:last1h", "unseen_silent_after_outage"),
    Mutant(_REPORTER_OUTAGE, "- 90  # seconds", "- 900", "unseen_killed_before_an_outage"),
    Mutant(_REPORTER_OUTAGE, "<= on () group_left () collector:progress_start_time_seconds", "< on () group_left () (0 * collector:progress_start_time_seconds)", "ends_before_a_restart"),
    Mutant(_REPORTER_OUTAGE, "collector:progress_start_time_seconds\n              - 90", "collector:progress_start_time_seconds\n              - 900", "killed_around_a_restart"),
    Mutant(_REPORTER_OUTAGE, "> instance:progress_heard_time_seconds", "< instance:progress_heard_time_seconds", "unseen_silent_after_outage"),
    Mutant(_REPORTER_SILENT, "> (count", "> bool (count", "killed"),
    Mutant(_REPORTER_SILENT, "> (count", ">= (count", "killed"),
    Mutant(_REPORTER_SILENT, " or 0 * instance:progress_in_flight:last1h)", ")", "unseen_killed"),
    Mutant(_REPORTER_SILENT, "(run:progress_active:last6h == 1)", "(run:progress_active:last6h)", "unseen_beside_ended"),
    Mutant(_REPORTER_SILENT, "present_over_time(progress_operation_active[3m])", "present_over_time(progress_operation_active[10m])", "unseen_killed"),
    Mutant(_REPORTER_SILENT, "unless on (job, instance) present_over_time(progress_operation_active[3m])", "unless on (job) present_over_time(progress_operation_active[3m])", "unseen_killed"),
    Mutant(_REPORTER_LOST, _GUARD, "", "unseen_gap"),
    Mutant(_REPORTER_LOST, ">= 60  # seconds", ">= 0", "unseen_killed"),
    Mutant(_REPORTER_LOST, "> instance:progress_heard_time_seconds", "< instance:progress_heard_time_seconds", "restart_while_lost"),
    Mutant("ReporterLost", f"unless {_now(_REPORTER_OUTAGE)}", "", "unseen_silent_after_outage"),
    Mutant("ReporterLost", f"and {_now(_REPORTER_OUTAGE)}", "", "unseen_killed"),
    Mutant(_LEFT, "== 0", "== 1", "ends_in_haste"),
    Mutant(_LEFT, "> on (job, instance)", "< on (job, instance)", "ends_in_haste"),
    Mutant(_LEFT, "or 0 * instance:progress_in_flight:last1h", "", "unseen_killed"),
    Mutant(_LEFT, """
              and (
                run:progress_heard_time_seconds
                > on (job, instance) group_left () instance:progress_counted_time_seconds
              )""", "", "unseen_beside_ended"),
    Mutant(_COUNTED, "last_over_time(instance:progress_counted_time_seconds[1h]) and instance:progress_in_flight:last1h", "0 * instance:progress_in_flight:last1h", "unseen_beside_ended"),
    # How it ended
    Mutant(_LOST_FOR, f"(time() - {_now(_GONE)})", f"(time() - {_now(_GONE)}) < 60", "proven"),
    Mutant(_LOST_FOR, f"unless {_now(_OUTAGE)}", "", "killed_in_an_outage"),
    Mutant(_LOST_FOR, f"and {_now(_OUTAGE)}", "", "killed"),
    Mutant(_OVER, "[19s]", "[5m]", "stuck_recovers"),
    Mutant(_OVER, ':held{alert="OperationSlow"}[19s])', ':held{alert="nothing"}[19s])', "slow_for_less_than_a_minute"),
    Mutant(_ACTIVE, 'progress_run_active{deployment_environment_name=""}', 'progress_run_active{deployment_environment_name="-"}', "environment_comes_later"),
    Mutant(_CHILDREN, "group by (deployment_environment_name, job, process,", "group by (job, process,", "child_in_one_of_two_environments"),
    Mutant(_CHILDREN, "and on (deployment_environment_name, progress_operation_id)\n            count by (deployment_environment_name, progress_operation_id)", "and on (progress_operation_id)\n            count by (progress_operation_id)", "child_of_an_id_in_one_of_two_environments"),
    Mutant(_UNHEARD, "unless on (deployment_environment_name, job, progress_operation_name", "unless on (job, progress_operation_name", "killed_in_one_of_two_environments"),
    Mutant(_GONE, "< on (deployment_environment_name, job, progress_operation_name, progress_operation_id) group_left ()\n            max by (deployment_environment_name, job, progress_operation_name, progress_operation_id)", "< on (job, progress_operation_name, progress_operation_id) group_left ()\n            max by (job, progress_operation_name, progress_operation_id)", "proven_in_one_of_two_environments"),
    Mutant("OperationLost", 'progress_lost_seconds{severity="critical"}', 'progress_lost_seconds{severity="warning"}', "killed"),
    # OperationNotStarted
    Mutant("OperationNotStarted", ">=", "<", "starts_late"),
    Mutant("OperationNotStarted", "last_over_time(progress_run_pending_seconds[3m])", "progress_run_pending_seconds", "starts_late"),
    Mutant("OperationNotStarted", "last_over_time(progress_run_pending_seconds[3m])", "max_over_time(progress_run_pending_seconds[3m])", "starts_late"),
    Mutant("OperationNotStarted", "for: 30s", "for: 0s", "starts_a_little_late"),
    # StuckByName
    Mutant("StuckByName", ">= 1", ">= 3", "unseen_stuck"),
    Mutant("StuckByName", ">= 1", "< 1", "unseen_stuck"),
    Mutant("StuckByName", "(last_over_time(progress_operation_active[5m])) > 0", "(last_over_time(progress_operation_active[5m])) >= 0", "unseen_ends_stuck"),
    Mutant("StuckByName", "last_over_time(progress_operation_stall_ratio[5m])", "progress_operation_stall_ratio", "unseen_stuck"),
    Mutant("StuckByName", "last_over_time(progress_operation_stall_ratio[5m])", "max_over_time(progress_operation_stall_ratio[5m])", "unseen_stuck"),
    Mutant("StuckByName", "for: 1m", "for: 0s", "unseen_stuck_shortly"),
    Mutant("StuckByName", "[5m]", "[3m]", "unseen_stuck_killed"),
    Mutant("StuckByName", "last_over_time(run:progress_trouble_seconds:held{alert=~\"OperationStuck|OperationLooping\"}[3m])", "(run:progress_idle_seconds:last3m < 0)", "stuck_recovers"),
    Mutant("StuckByName", "last_over_time(run:progress_trouble_seconds:held{alert=~\"OperationStuck|OperationLooping\"}[3m])", "run:progress_trouble_seconds:held", "unseen_stuck_beside_stuck"),
    # ReporterLost
    Mutant("instance:progress_in_flight:last1h", "min by", "sum by", "doubled"),
    Mutant("instance:progress_in_flight:last1h", "min by", "max by", "ends_in_one_of_two"),
    Mutant("instance:progress_in_flight:last1h", "last_over_time", "max_over_time", "unseen_killed"),
    Mutant("instance:progress_in_flight:last1h", "[1h]", "[2h]", "unseen_killed"),
    # PipelineDown
    Mutant("PipelineDown", "== 0", "== 1", "progressing"),
    Mutant("PipelineDown", "for: 1m", "for: 0s", "collector_restart"),
    Mutant("PipelineDown", "for: 1m", "for: 10m", "outage"),
    Mutant("PipelineDown", "unless on (job, instance) collector:progress_works", "== 1", "one_of_two_collectors"),
    Mutant("collector:progress_works", "== 1", ">= 0", "outage"),
    Mutant("collector:progress_works", "unless on (job, instance) last_over_time(collector:progress_refuses[1s])", "", "collector_refuses"),
    Mutant("collector:progress_works", "rate(otelcol_exporter_send_failed_metric_points_total{job=\"otel-collector\"}[3m])\n", "rate(otelcol_exporter_send_failed_metric_points_total{job=\"otel-collector\"}[3m]) < 0\n", "collector_refused"),
    Mutant("collector:progress_works", "and changes(otelcol_exporter_send_failed_metric_points_total{job=\"otel-collector\"}[3m]) > 1", "", "collector_refused_once_at_rest"),
    Mutant("collector:progress_works", "-3 * rate(otelcol_exporter_sent_metric_points_total{job=\"otel-collector\"}[3m])", "0 * rate(otelcol_exporter_sent_metric_points_total{job=\"otel-collector\"}[3m])", "collector_refused_little"),
    Mutant("collector:progress_works", "-3 * rate(otelcol_exporter_sent_metric_points_total{job=\"otel-collector\"}[3m])", "-30 * rate(otelcol_exporter_sent_metric_points_total{job=\"otel-collector\"}[3m])", "collector_overrun"),
    Mutant("collector:progress_works", "(rate(otelcol_exporter_sent_metric_points_total{job=\"otel-collector\"}[3m]) == 0)", "(rate(otelcol_exporter_sent_metric_points_total{job=\"otel-collector\"}[3m]) < 0)", "collector_blocked"),
    Mutant("collector:progress_works", "rate(otelcol_exporter_enqueue_failed_metric_points_total{job=\"otel-collector\"}[3m])\n", "rate(otelcol_exporter_enqueue_failed_metric_points_total{job=\"otel-collector\"}[3m]) < 0\n", "collector_overrun"),
    Mutant("collector:progress_works", "changes(otelcol_receiver_accepted_metric_points_total{job=\"otel-collector\"}[3m]) > 1", "changes(otelcol_receiver_accepted_metric_points_total{job=\"otel-collector\"}[3m]) >= 0", "collector_at_rest"),
    Mutant("collector:progress_works", "changes(otelcol_receiver_accepted_metric_points_total{job=\"otel-collector\"}[3m]) > 1", "changes(otelcol_receiver_accepted_metric_points_total{job=\"otel-collector\"}[3m]) > 0", "collector_refused_once_at_rest"),
    Mutant("collector:progress_refuses", "-3 * rate(", "0 * rate(", "collector_refuses_little"),
    Mutant("collector:progress_refuses", ") > 0\n", ") < 0\n", "collector_refuses"),
    Mutant("collector:progress_works:count", "0 * count(last_over_time(up{job=\"otel-collector\"}[6h]))", "vector(0)", "unwatched"),
    Mutant("collector:progress_works:count", "last_over_time(up{job=\"otel-collector\"}[6h])", "up{job=\"otel-collector\"}", "outage_discovered"),
    Mutant("collector:progress_outage", "+\n            150  # seconds", "+ 0", "ends_while_nothing_is_exported"),
    Mutant("collector:progress_outage", "(collector:progress_works:count == 0) +", "(collector:progress_works:count == 1) +", "ends_while_nothing_is_exported"),
    Mutant("collector:progress_outage", "0 * (collector:progress_works:count == 0) unless", "0 * (collector:progress_works:count == 1) unless", "killed_before_an_outage"),
    Mutant("collector:progress_blind:last5m", "[5m]", "[1m]", "late_reconnect"),
    Mutant("progress:listening_time_seconds", "vector(time())", "vector(0)", "killed"),
    # ErrorRate
    Mutant("ErrorRate", "> 0.1", "> 0.5", "errors"),
    Mutant("ErrorRate", "> 0.1", "< 0.1", "progressing_often"),
    Mutant("ErrorRate", ">= 5", ">= 0", "few_errors"),
    Mutant("ErrorRate", 'progress_status=~"failed|lost"', 'progress_status!="completed"', "cancelled_often"),
    Mutant("ErrorRate", "for: 2m", "for: 0s", "errors"),
    Mutant(_ENDED, "increase(progress_operation_ended_total", "delta(progress_operation_ended_total", "fork"),
    Mutant(_ENDED, "increase(progress_operation_ended_total[15m])", "increase(progress_operation_ended_total[1m])", "errors"),
    Mutant(_ENDED, "min_over_time(progress_operation_ended_total[15m])", "0 * min_over_time(progress_operation_ended_total[15m])", "errors_of_short_processes"),
    Mutant(_ENDED, "unless last_over_time(\n                progress_operation_ended_total[1h] offset 15m\n              )", "", "errors"),
    Mutant(_ENDED, "progress_operation_ended_total[1h] offset", "progress_operation_ended_total[1m] offset", "errors_before_the_rules"),
    Mutant(_ENDED, "unless on () present_over_time(collector:progress_outage[15m])", "", "errors_before_an_outage"),
    Mutant(_ENDED, "and on () last_over_time(\n                progress:listening_time_seconds[1m] offset 15m\n              )", "", "errors_before_the_rules"),
    # Parents whose children are in other processes
    Mutant(_CHILDREN, "min by", "max by", "child_elsewhere_ends_in_one_of_two"),
    Mutant(_CHILDREN, "group by (deployment_environment_name, job, process, progress_operation_name, progress_operation_id)", "group by (deployment_environment_name, job, progress_operation_name, progress_operation_id)", "child_here_beside_hang"),
    Mutant(_CHILDREN, ") == 1\n", ") >= 0\n", "child_elsewhere_ends"),
    Mutant(_CHILDREN, "last_over_time(progress_run_active", "max_over_time(progress_run_active", "child_elsewhere_ends"),
    Mutant(_CHILDREN, "last_over_time(progress_run_active{progress_operation_parent_id!=\"\"}[3m])", "progress_run_active{progress_operation_parent_id!=\"\"}", "child_elsewhere_gaps"),
    Mutant(_CHILDREN, "last_over_time(progress_run_parent[4m])", "progress_run_parent", "same_id_in_two_services_gaps"),
    Mutant(_CHILDREN, "[3m]", "[1m]", "child_elsewhere_gaps"),
    Mutant(_CHILDREN, '"progress_operation_parent_id", "(.+)"', '"progress_operation_id", "(.+)"', "child_elsewhere"),
    Mutant(_CHILDREN, '"progress_operation_parent_service", "(.+)"', '"job", "(.+)"', "same_id_in_two_services"),
    Mutant(_CHILDREN, '"progress_operation_parent_name", "(.+)"', '"progress_operation_name", "(.+)"', "same_id_of_two_names"),
    Mutant(_CHILDREN, '"process", "/", "job", "instance"', '"process", "/", "instance"', "child_here_beside_hang"),
    Mutant(_CHILDREN, "unless on (deployment_environment_name, job, instance, progress_operation_name, progress_operation_id)", "and on (deployment_environment_name, job, instance, progress_operation_name, progress_operation_id)", "child_that_knows_only_an_id"),
    Mutant(_ELSEWHERE, "> 1", "> 0", "child_here_beside_hang"),
    Mutant(_ELSEWHERE, "> 1", "> 2", "children_here_and_elsewhere"),
    Mutant(_ELSEWHERE, f"unless on (deployment_environment_name, job, process, progress_operation_name, progress_operation_id) {_now(_CHILDREN)}", "", "child_here_beside_hang"),
    Mutant(_ELSEWHERE, "unless on (deployment_environment_name, job, process, progress_operation_name, progress_operation_id)", "unless on (deployment_environment_name, job, progress_operation_name, progress_operation_id)", "child_elsewhere"),
    Mutant(_ELSEWHERE, "count by (deployment_environment_name, job, progress_operation_name, progress_operation_id)", "count by (deployment_environment_name, job, process, progress_operation_name, progress_operation_id)", "children_here_and_elsewhere"),
    Mutant(_ELSEWHERE, f"and on (deployment_environment_name, job, progress_operation_name, progress_operation_id) {_now(_CHILDREN)}", f"and on (deployment_environment_name, job) {_now(_CHILDREN)}", "one_of_two_waits_for_a_child"),
    Mutant(_ELSEWHERE, f"and on (deployment_environment_name, job, progress_operation_name, progress_operation_id) {_now(_CHILDREN)}", f"and on (progress_operation_id) {_now(_CHILDREN)}", "same_id_in_two_services"),
    Mutant(_HELD, "time() - last_over_time(run:progress_child_elsewhere_time_seconds[6h])\n              - 30  # seconds", "0 * last_over_time(run:progress_child_elsewhere_time_seconds[6h])", "child_elsewhere_ends"),
    Mutant(_HELD, f"< {_now(_LIMIT)}", "< 1", "children_elsewhere_in_turn"),
    Mutant(_HELD, "run:progress_child_elsewhere_time_seconds[6h]", "run:progress_child_elsewhere_time_seconds[15s]", "children_elsewhere_in_turn"),
    Mutant(_HELD, "and on () collector:progress_blind:last5m", "and on () (collector:progress_blind:last5m == 0)", "child_elsewhere_after_outage"),
    Mutant(_HELD, "- 30  # seconds", "", "children_elsewhere_in_turn"),
    Mutant(_HELD, "> time() - last_over_time(run:progress_idle_seconds:last3m[1s])", "", "parent_once_stuck_and_outage"),
    Mutant(_HELD, "> last_over_time(run:progress_child_elsewhere_time_seconds[6h])\n", "> 0 * last_over_time(run:progress_child_elsewhere_time_seconds[6h])\n", "parent_stuck_before_its_child_and_outage"),
    Mutant(_HELD, "and on () collector:progress_blind:last5m", "", "child_elsewhere_ends"),
    Mutant(_HELD, f"{_now(_IDLE)} >= {_now(_LIMIT)}", _now(_IDLE), "unseen_stuck_beside_parent"),
    Mutant(_TROUBLE, f"unless {_now(_HELD)}", "", "child_elsewhere"),
    Mutant(_TROUBLE, f"unless {_now(_HELD)}", f"unless on (deployment_environment_name, job, instance) {_now(_HELD)}", "one_of_two_waits_for_a_child"),
    Mutant(_TROUBLE, f"unless {_now(_HELD)}", f"unless on (progress_operation_id) {_now(_CHILDREN)}", "child_here_beside_hang"),
    Mutant("StuckByName", "unless on (job, instance, progress_operation_name) last_over_time(run:progress_idle_held_back_seconds[3m])", "", "child_elsewhere"),
    Mutant("StuckByName", "last_over_time(run:progress_idle_held_back_seconds[3m])", "last_over_time(run:progress_idle_held_back_seconds[6h])", "unseen_stuck_beside_parent"),
    Mutant("StuckByName", "last_over_time(run:progress_idle_held_back_seconds[3m])", "run:progress_idle_held_back_seconds", "child_elsewhere_seldom_counted"),
    Mutant("StuckByName", "unless on (job, instance, progress_operation_name)", "unless on (job, instance)", "child_elsewhere_beside_unseen"),
)  # fmt: skip
