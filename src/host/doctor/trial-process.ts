/** A process of its own for the trial of a device, so that a namespace can be made for it: prints what it found as JSON. */
import { isAddonProblem, loadAddon } from "../../io/addon.ts";
import { failedTrial, tryDevice } from "./device-trial.ts";

const addon = loadAddon();
const apart = process.argv[2] === "apart";
const trial = isAddonProblem(addon) ? failedTrial(addon.cause) : await tryDevice(addon, apart);
process.stdout.write(JSON.stringify(trial));
