"""The pages for people: HTML that works without a script. Pure: values in, text out.

    words        states, reasons and conditions in words
    frame        what every page has around it: style, skip link, navigation, times, badges
    live         what changes while one looks: conditions, the running job
    models       all models, filtered
    model        one model;  versions: its history and what changed between two commits
    parts        ways from a model down to what is in it
    ingredient   an adapter, a checkpoint or a base with the models that contain it
    jobs         the syncs, and one of them with its log
    live.js      refreshes the parts that change, and does nothing else

All that comes from a catalog, from Git or from a log is hostile text and is escaped here.
"""
