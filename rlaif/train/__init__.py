"""Training on the labels: thin over TRL's stable trainers, under any launcher of `accelerate`.

    RUN/data/{sft,pairs} → plan → arguments → trainer → RUN/models/<stage>/final

``accelerate launch -m rlaif.train {sft,dpo,reward} RECIPE`` trains one stage. A recipe's block for
a stage *is* the arguments of TRL's config. `plan` imports nothing heavy, so that a stage that is
already trained is skipped at once.
"""
