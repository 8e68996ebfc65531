// SPDX-License-Identifier: GPL-3.0-or-later
// A job type for Flamenco, Blender's farm manager: chunks of a manifest, then the report of all of them.
// Put this file into the folder `scripts` beside the manager, and restart it. Every worker has Blender with the
// extension, and sees the manifest's folder and the output.

"use strict";

const JOB_TYPE = {
    label: "Wav2Sem Batch",
    description: "Animate every line of a manifest from its recording, and write a report",
    settings: [
        { key: "manifest", type: "string", subtype: "file_path", required: true,
          description: "A csv or jsonl file; its paths are relative to its folder" },
        { key: "output", type: "string", subtype: "dir_path", required: true,
          description: "The folder of the results and of the report" },
        { key: "formats", type: "string", default: "blend",
          description: "blend, glb, fbx, usd, abc for rows with a character; npz, csv, table; with commas" },
        { key: "chunks", type: "int32", default: 10, propargs: { min: 1 },
          description: "Into how many parts the rows are divided; one Blender makes a part" },
        { key: "jobs", type: "int32", default: 1, propargs: { min: 1 },
          description: "Workers in each Blender, for rows without a character" },
        { key: "recognise", type: "string", subtype: "dir_path", required: false, default: "",
          description: "The folder of a Whisper model that writes the transcript of rows without one" },
    ],
};

function compileJob(job) {
    const settings = job.settings;
    const report = author.Task("report", "misc");
    for (let chunk = 1; chunk <= settings.chunks; chunk++) {
        const task = author.Task(`lines-${chunk}-of-${settings.chunks}`, "misc");
        task.addCommand(command(settings, ["--chunk", `${chunk}/${settings.chunks}`, "--lines-may-fail"]));
        report.addDependency(task);
        job.addTask(task);
    }
    report.addCommand(command(settings, []));
    job.addTask(report);
}

function command(settings, more) {
    return author.Command("exec", {
        exe: "{blender}",
        args: ["--background", "--command", "wav2sem_batch", settings.manifest, "--output", settings.output,
               "--format", settings.formats, "--jobs", String(settings.jobs),
               "--recognise", settings.recognise].concat(more),
    });
}
