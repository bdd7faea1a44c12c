// node build/demo.js ID [run|hang|wait]: an import of two stages; it completes, hangs in the second one, or waits too long
import { randomUUID } from "node:crypto";
import { Reporter } from "./emitter.js";

const [id = randomUUID(), mode = "run"] = process.argv.slice(2);
const pause = (seconds: number) => new Promise((resolve) => setTimeout(resolve, seconds * 1000));
const reporter = new Reporter("typescript-import");
try {
  await reporter.run("import", id, { unit: "file", stallAfter: 3 }, async (operation) => {
    const files = (count: number) => async () => {
      for (let file = 0; file < count; file++) {
        while (mode === "hang" && file === 10) await pause(0.1).then(() => operation.abort.signal.throwIfAborted());
        await pause(0.1);
        operation.advance();
      }
    };
    await operation.stage("fetch", 4, files(4));
    await operation.waiting("approval", 2, pause(mode === "wait" ? 4 : 0));
    await operation.stage("load", 20, files(20));
  });
} catch (error) {
  console.error(String(error));
  process.exitCode = 1;
} finally {
  await reporter.close();
}
