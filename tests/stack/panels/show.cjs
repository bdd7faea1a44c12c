#!/usr/bin/env node
// Reads {from, to, panels: [{panel, frames, variables}]} as JSON from stdin. Writes for each panel what a person sees,
// by Grafana's own code: columns in order, cells with unit and mapping, and the links of each row.
//
// Not in @grafana/data, so modelled here in a few lines: the list of standard options (`standard`), the variables of
// links (`replaced`), the transformation `extractFields`, and the sorting of the table panel.
"use strict";
process.env.TZ = "UTC";
Object.defineProperty(globalThis, "navigator", { value: { language: "en-US", languages: ["en-US"] }, configurable: true });
const { readFileSync } = require("node:fs");

const given = JSON.parse(readFileSync(0, "utf8"));
// "3 minutes ago" is by the end of the recorded time.
globalThis.Date = class extends Date {
  constructor(...parts) {
    super(...(parts.length ? parts : [given.to]));
  }
  static now() {
    return given.to;
  }
};
const data = require("@grafana/data");
const { get } = require("lodash");
const { map } = require("rxjs");

globalThis.window = {}; // only afterwards, as some packages would look for a whole browser

const numeric = (field) => field.type === data.FieldType.number;
const always = () => true;
const standard = {
  unit: [data.unitOverrideProcessor, always],
  min: [data.numberOverrideProcessor, numeric],
  max: [data.numberOverrideProcessor, numeric],
  decimals: [data.numberOverrideProcessor, numeric],
  displayName: [data.displayNameOverrideProcessor, always],
  noValue: [data.stringOverrideProcessor, always],
  thresholds: [data.thresholdsOverrideProcessor, always],
  mappings: [data.valueMappingsOverrideProcessor, always],
  links: [data.dataLinksOverrideProcessor, always],
  color: [data.identityOverrideProcessor, always],
  filterable: [data.identityOverrideProcessor, always],
};

const extractFields = {
  id: "extractFields",
  name: "Extract fields",
  operator: (options) => (source) =>
    source.pipe(
      map((frames) =>
        frames.map((frame) => {
          const from = frame.fields.find((field) => field.name === options.source);
          if (!from) return frame;
          const names = [...new Set(from.values.flatMap((value) => Object.keys(value ?? {})))];
          const extracted = names.map((name) => ({
            name,
            type: data.FieldType.string,
            config: {},
            values: from.values.map((value) => value?.[name]),
          }));
          const kept = options.replace ? frame.fields.filter((field) => options.keepTime && field.type === "time") : frame.fields;
          return { ...frame, fields: [...kept, ...extracted] };
        }),
      ),
    ),
};

const transformers = new Map([...Object.values(data.standardTransformers), extractFields].map((found) => [found.id, found]));
data.standardTransformersRegistry.setInit(() =>
  [...transformers.values()].map((found) => ({
    id: found.id,
    name: found.name,
    transformation: () => found,
    aliasIds: [],
  })),
);

const theme = data.createTheme();
const colours = new Map(
  theme.visualization.hues
    .flatMap((hue) => hue.shades)
    .sort((one, other) => Number(other.primary ?? false) - Number(one.primary ?? false))
    .map((shade) => [shade.color.toLowerCase(), shade.name])
    .reverse(),
);
const colourName = (colour) => colours.get(data.colorManipulator.asHexString(colour).toLowerCase()) ?? colour;

const replacer = (variables) => (text, scoped, format) => replaced(variables, text, scoped, format);

function replaced(variables, text, scoped, format) {
  return String(text ?? "").replace(/\$(\w+)|\$\{(\w+)(?:\.([^:}]+))?(?::([^}]+))?\}/g, (whole, short, name, path, form) => {
    const value = variable(variables, short ?? name, path, scoped);
    if (value === undefined) return whole;
    const how = form ?? format;
    if (how === "queryparam") return `var-${short ?? name}=${encodeURIComponent(value)}`;
    if (how === "percentencode") return encodeURIComponent(value);
    return how === "uriencode" ? encodeURI(value) : value;
  });
}

function variable(variables, name, path, scoped) {
  if (name === "__data") {
    const context = scoped?.__dataContext?.value;
    const cells = data.getFieldDisplayValuesProxy({ frame: context.frame, rowIndex: context.rowIndex });
    const found = get({ fields: cells }, path);
    return found === undefined ? undefined : String(found);
  }
  if (name === "__url_time_range") return "from=now-1h&to=now";
  return { __from: given.from, __to: given.to, ...variables }[name]?.toString();
}

function registry(panel) {
  const own = [
    ...Object.keys(panel.fieldConfig.defaults.custom ?? {}),
    ...panel.fieldConfig.overrides.flatMap((rule) => rule.properties.map((one) => one.id)).filter((id) => id.startsWith("custom.")).map((id) => id.slice(7)),
  ];
  const custom = [...new Set(own)].map((path) => ({
    id: `custom.${path}`,
    path,
    name: path,
    isCustom: true,
    process: data.identityOverrideProcessor,
    shouldApply: always,
  }));
  const common = Object.entries(standard).map(([id, [process, shouldApply]]) => ({ id, path: id, name: id, process, shouldApply }));
  return new data.Registry(() => [...common, ...custom]);
}

function transformed(panel, frames) {
  const unknown = (panel.transformations ?? []).find(({ id }) => !transformers.has(id));
  if (unknown) throw new Error(`${panel.title}: the transformation ${unknown.id} is not known here`);
  return new Promise((resolve, reject) => {
    const context = { interpolate: (text) => text };
    data.transformDataFrame(panel.transformations ?? [], frames, context).subscribe({ next: resolve, error: reject });
  });
}

const text = (shown) => data.formattedValueToString(shown).trim();

function cell(field, value) {
  const shown = field.display(value);
  const how = field.config.custom?.cellOptions?.type ?? "";
  const coloured = how.startsWith("color") && text(shown) !== "";
  return coloured ? `${text(shown)} [${colourName(shown.color)}]` : text(shown);
}

function table(panel, frames) {
  const [frame] = frames;
  if (!frame) return { kind: "table", columns: [], rows: [] };
  const fields = frame.fields.filter((field) => !(field.config.custom?.hidden || field.config.custom?.hideFrom?.viz));
  const names = fields.map((field) => data.getFieldDisplayName(field, frame, frames));
  let order = [...Array(frame.length).keys()];
  for (const { displayName, desc } of [...(panel.options.sortBy ?? [])].reverse()) {
    const by = fields[names.indexOf(displayName)];
    if (!by) throw new Error(`${panel.title}: there is no column ${displayName} to sort by`);
    const compare = (one, other) =>
      numeric(by) ? (one ?? -Infinity) - (other ?? -Infinity) || 0 : String(one ?? "").localeCompare(String(other ?? ""));
    order = order.toSorted((one, other) => compare(by.values[one], by.values[other]) * (desc ? -1 : 1));
  }
  return {
    kind: "table",
    tables: frames.length,
    columns: fields.map((field, number) => ({ name: names[number], width: field.config.custom?.width ?? null })),
    rows: order.map((row) => fields.map((field) => cell(field, field.values[row]))),
    links: order.map((row) =>
      Object.fromEntries(
        fields
          .map((field, number) => [names[number], field.getLinks({ valueRowIndex: row }).map(({ title, href }) => ({ title, href }))])
          .filter(([, found]) => found.length),
      ),
    ),
  };
}

function numbers(panel, frames, variables) {
  const shown = data.getFieldDisplayValues({
    fieldConfig: panel.fieldConfig,
    reduceOptions: panel.options.reduceOptions,
    replaceVariables: replacer(variables),
    theme,
    data: frames,
    timeZone: "utc",
  });
  const named = shown.length > 1 || panel.options.textMode === "value_and_name";
  const rows = shown.map(({ display }) => [named ? display.title : "", `${text(display)} [${colourName(display.color)}]`]);
  return { kind: "numbers", rows };
}

function lines(frames) {
  const rows = [];
  for (const frame of frames)
    for (const field of frame.fields.filter(numeric)) {
      const last = field.values.findLast((value) => value !== null && value !== undefined);
      rows.push([data.getFieldDisplayName(field, frame, frames), text(field.display(last))]);
    }
  return { kind: "lines", rows };
}

function said(frames) {
  const found = frames.flatMap((frame) => frame.fields.find((field) => field.name === "Line")?.values ?? []);
  return { kind: "logs", rows: found.map((line) => [line]) };
}

async function show({ panel, frames, variables }) {
  const known = await transformed(panel, frames.map((frame) => data.toDataFrame(frame)));
  const shown = data.applyFieldOverrides({
    data: known,
    fieldConfig: panel.fieldConfig,
    replaceVariables: replacer(variables),
    theme,
    timeZone: "utc",
    fieldConfigRegistry: registry(panel),
  });
  if (panel.type === "table") return table(panel, shown);
  if (["stat", "gauge", "bargauge"].includes(panel.type)) return numbers(panel, shown, variables);
  return panel.type === "logs" ? said(shown) : lines(shown);
}

Promise.all(given.panels.map(show)).then(
  (all) => process.stdout.write(JSON.stringify(all)),
  (error) => {
    process.stderr.write(`${error.stack}\n`);
    process.exit(1);
  },
);
