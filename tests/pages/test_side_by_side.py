"""A study, a benchmark and a comparison as pages."""

from diffrep.pages import comparison
from diffrep.runs.summary import Numbers
from diffrep.studies.table import Number, Table
from pages.test_run_page import read
from runs_at_hand import diffrep, run_of


def test_a_page_of_runs_has_the_mean_over_seeds(tmp_path):
    """Two seeds with 1.0 and 3.0 bits/dim stand at 2.0 with an error of 1.0, which is worked out by hand."""
    numbers = [Numbers(bits_per_dim=1.0, rate_nats=4.0), Numbers(bits_per_dim=3.0, rate_nats=6.0)]
    groups = {"<a>": numbers, "b": [Numbers(bits_per_dim=1.5, bits_per_dim_se=0.1, rate_nats=1.0, probe_linear=0.9)]}
    table = Table(("run", "bits/dim"), (("<a>", Number(2.0, 1.0)), ("b", Number(1.5, 0.1, bold=True))))
    page = read(comparison(tmp_path / "page.html", "two", "about", table, groups, ["diffrep study a.toml -o out"]))
    assert page.titles == ["The numbers", "The bound on -log p(x)", "What simple models read", "Make it again"]
    text = (tmp_path / "page.html").read_text()
    assert "&lt;a&gt;, bits/dim: 2.0000 ± 1.0000" in text and "<b>1.500 ± 0.100</b>" in text
    assert "b, bits/dim: 1.5000 ± 0.1000" in text  # of one seed, the error over its test examples


def test_compare_writes_a_page(tmp_path):
    """The command's page shows each run by name."""
    a, b = run_of("vae-vdm"), run_of("vdm")
    assert diffrep("compare", a, b, "--html", tmp_path / "c.html") == 0
    assert "The numbers" in read(tmp_path / "c.html").titles


def test_few_runs_of_many_numbers_stand_side_by_side(tmp_path):
    """One run with three numbers is a column with three rows: a page is higher than wide."""
    table = Table(("run", "seeds", "bits/dim", "rate"), (("a", "3", Number(2.0, 1.0), "-"),))
    text = comparison(tmp_path / "page.html", "one", "about", table, {"a": [Numbers(bits_per_dim=2.0)]}).read_text()
    assert '<th scope="col">run</th><th scope="col" class="n">a</th>' in text
    assert '<th scope="row">bits/dim</th><td class="n">2.00' in text and '<th scope="row">rate</th>' in text
