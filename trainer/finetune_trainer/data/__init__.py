"""From files as users have them to rows the train stage maps from disk.

In the order of a row's way: `readers` turn files into records; `sources` choose the files of a split; `columns` find
which column plays which role; a task's parser makes a sample of each record, with `values` and `labels`; `fingerprints`
remember what is needed of each; `splits` read all of it, and `holdout` says what is held out; `tokenized_files`
write the tokens; `report` says what a user should know. What is wrong with rows is gathered in `findings`.

Nothing here knows a task: a task gives the forms its rows may have and the parser of a record.
"""
