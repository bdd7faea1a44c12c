#!/usr/bin/env node
// Reads [[language, query], ...] as JSON from stdin. Writes for each query what its grammar can't place, as a list of
// "what it met, and where": an empty list for a query that is right.
import { readFileSync } from "node:fs";

import { parser as logql } from "@grafana/lezer-logql";
import { parser as traceql } from "@grafana/lezer-traceql";
import { parser as promql } from "@prometheus-io/lezer-promql";

const parsers = { logql, promql, traceql };

function errors(language, query) {
  const found = [];
  parsers[language].parse(query).iterate({
    enter(node) {
      if (node.type.isError) {
        // An error without a length stands where something is missing.
        const met = query.slice(node.from, node.to);
        found.push(met ? `${JSON.stringify(met)} at ${node.from}` : `something is missing at ${node.from}`);
      }
    },
  });
  return found;
}

const queries = JSON.parse(readFileSync(0, "utf8"));
process.stdout.write(JSON.stringify(queries.map(([language, query]) => errors(language, query))));
