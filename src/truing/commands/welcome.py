"""The text that `truing` prints without a command, and at the head of its help."""

HELP = """Bring a language model into true: feedback in, aligned models, measurements and a release decision out.

A recipe is one YAML file that names the stages: split data, fine-tune, fit a reward model, prefer the better
responses, evaluate, decide. Everything it leaves is in one folder, with a report.html to open.

\b
  truing run quickstart                   a few minutes on a laptop, no data needed
  truing list recipes                     the recipes that come with it
  truing show recipe hh_dpo > mine.yaml   one of them, to change
  truing check mine.yaml data=my.jsonl    every mistake at once, nothing is run
  truing run mine.yaml data=my.jsonl      your own pairs, to a decision

\b
Exit codes: 0 done (a gate: ship)    1 the answer is no (a gate: hold; an expectation not met; a broken contract)
            2 your mistake           3 the run failed
            4 a gate cannot decide: it says which evidence is missing
            130 stopped by Ctrl-C    143 stopped by SIGTERM; a run goes on with --resume
"""
